/*
 * access.h - where an API server is and by what right we ask: of a pod's service account, a kubeconfig, or an address with
 * files beside it.
 */
#ifndef TAILRACE_KUBE_ACCESS_H
#define TAILRACE_KUBE_ACCESS_H

#include "agent/base/buf.h"
#include "agent/base/err.h"
#include "conf/conf.h"

struct access {
    struct buf server, kubelet; /* "https://10.96.0.1:443", no slash behind */
    struct buf token;           /* empty: none */
    struct buf ca, cert, key;   /* PEM; empty: the system's authorities; no client certificate */
    bool is_insecure;           /* the configuration says so */
};

void access_init(struct access *a);
void access_deinit(struct access *a); /* what is secret is overwritten */

/* Does the configuration, or the cluster that we run in, name a server? */
bool access_is_wanted(const struct conf_kubernetes *conf);
/* Reads all of it anew. A sentence in err says what is missing. */
NODISCARD int access_load(struct access *a, const struct conf_kubernetes *conf, bool is_kubelet, struct err *err);

#endif
