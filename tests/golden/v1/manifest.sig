{
 "algorithm": "Ed25519",
 "public_key": "4p0PJk+iUG4aSdu+bZY/sDg01tuBDFqtEleMiz7t7to=",
 "signature": "JkSH7SKAWVzSzX9jRD7bdTui26VGIOshV7qYV+frH/uzoSUdXk1XIw/8HhxmZPo9zN/9Rm+Vi7boqW+h7OgYAw=="
}
