/* Preloaded into Firefox: x264 gives every picture back as soon as it was given one.
 *
 * Firefox (153, media.webrtc.encoder_creation_strategy = 1) opens libavcodec's x264 with its default
 * look-ahead of forty pictures and throws away whatever comes later than a few, so nothing is ever
 * sent. There is no setting for it; this stands between libavcodec and libx264 and sets it. 164 is the
 * interface of Debian 12's library.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stddef.h>

static const char *const AT_ONCE[][2] = {
    {"rc-lookahead", "0"}, {"sync-lookahead", "0"}, {"mbtree", "0"}, {"bframes", "0"},
    {"sliced-threads", "1"},
    /* And cheaply: the tests' machine encodes several pictures at once. */
    {"subme", "0"}, {"me", "dia"}, {"ref", "1"}, {"trellis", "0"}, {"partitions", "none"},
    {"weightp", "0"}, {"scenecut", "0"}, {"aq-mode", "0"},
    {NULL, NULL},
};

void *x264_encoder_open_164(void *parameters)
{
    /* Already loaded, but privately with libavcodec: RTLD_NEXT would not find it. */
    void *x264 = dlopen("libx264.so.164", RTLD_LAZY | RTLD_NOLOAD);
    if (x264 == NULL)
        return NULL;
    int (*set)(void *, const char *, const char *) = dlsym(x264, "x264_param_parse");
    void *(*open)(void *) = dlsym(x264, "x264_encoder_open_164");
    if (set == NULL || open == NULL)
        return NULL;
    for (const char *const (*each)[2] = AT_ONCE; (*each)[0] != NULL; each++)
        set(parameters, (*each)[0], (*each)[1]);
    return open(parameters);
}
