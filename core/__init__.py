"""The kernel: what every room of the house stands on. It imports nothing of ours.

ids · clock · errors · settings · log     words and values
db · events · store · blobs               where things are kept
identity · policy · grants · audit        who may do what, and the proof of it
"""
