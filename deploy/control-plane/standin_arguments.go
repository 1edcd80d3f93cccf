package main

import (
	"errors"
	"path/filepath"
	"strconv"
	"strings"
)

// standInArguments are what k3s makes of its flags.
func standInArguments(o *standInOptions, l *layout, s *store) (*arguments, error) {
	logging := loggingFlags(o.verbosity)
	var result arguments
	var err, err2 error
	result.apiServer, err = flagList(withValues(o.apiServerArgs), standInServer(o, l), s.flags, logging)
	result.controllerManager, err2 = flagList(withValues(o.controllerArgs), standInControllers(o, l, s.shared), logging)
	return &result, errors.Join(err, err2)
}

func standInServer(o *standInOptions, l *layout) map[string]string {
	issuer := "https://kubernetes.default.svc." + o.clusterDomain
	flags := map[string]string{
		"allow-privileged":                   "true",
		"anonymous-auth":                     "false",
		"api-audiences":                      issuer + ",k3s",
		"authorization-mode":                 "Node,RBAC",
		"bind-address":                       "127.0.0.1",
		"cert-dir":                           l.file("temporary-certs"),
		"client-ca-file":                     l.file(clientCA + ".crt"),
		"enable-admission-plugins":           "NodeRestriction",
		"enable-bootstrap-token-auth":        "true",
		"kubelet-certificate-authority":      l.file(serverCA + ".crt"),
		"kubelet-client-certificate":         l.file("client-kube-apiserver.crt"),
		"kubelet-client-key":                 l.file("client-kube-apiserver.key"),
		"profiling":                          "false",
		"proxy-client-cert-file":             l.file("client-auth-proxy.crt"),
		"proxy-client-key-file":              l.file("client-auth-proxy.key"),
		"requestheader-allowed-names":        "system:auth-proxy",
		"requestheader-client-ca-file":       l.file(requestHeaderCA + ".crt"),
		"requestheader-extra-headers-prefix": "X-Remote-Extra-",
		"requestheader-group-headers":        "X-Remote-Group",
		"requestheader-username-headers":     "X-Remote-User",
		"secure-port":                        strconv.Itoa(o.apiPort()),
		"service-account-issuer":             issuer,
		"service-account-key-file":           l.file("service.key"),
		"service-account-signing-key-file":   l.file("service.current.key"),
		"service-cluster-ip-range":           o.serviceCIDR,
		"service-node-port-range":            o.nodePorts,
		"tls-cert-file":                      l.file("serving-kube-apiserver.crt"),
		"tls-private-key-file":               l.file("serving-kube-apiserver.key"),
		// Ours, not k3s': see serverFlags.
		"shutdown-watch-termination-grace-period": "3s",
	}
	if l.advertise != "" {
		flags["advertise-address"] = l.advertise
	}
	return flags
}

func standInControllers(o *standInOptions, l *layout, shared bool) map[string]string {
	cred := filepath.Join(l.cred, "controller.kubeconfig")
	flags := map[string]string{
		"allocate-node-cidrs":              "true",
		"authentication-kubeconfig":        cred,
		"authorization-kubeconfig":         cred,
		"cluster-cidr":                     o.clusterCIDR,
		"controllers":                      "*,tokencleaner",
		"kubeconfig":                       cred,
		"leader-elect":                     strconv.FormatBool(shared),
		"profiling":                        "false",
		"root-ca-file":                     l.file(serverCA + ".crt"),
		"secure-port":                      "0",
		"service-account-private-key-file": l.file("service.current.key"),
		"service-cluster-ip-range":         o.serviceCIDR,
		"use-service-account-credentials":  "true",
	}
	if !o.disableCloud {
		flags["controllers"] += ",-service,-route,-cloud-node-lifecycle"
		flags["configure-cloud-routes"] = "false"
	}
	for signer, ca := range map[string]string{
		"kube-apiserver-client": clientCA, "kubelet-client": clientCA, "kubelet-serving": serverCA, "legacy-unknown": serverCA,
	} {
		flags["cluster-signing-"+signer+"-cert-file"] = l.file(ca + ".crt")
		flags["cluster-signing-"+signer+"-key-file"] = l.file(ca + ".key")
	}
	return flags
}

// withValues: k3s takes a name alone for a flag that is to be true.
func withValues(args []string) []string {
	var list []string
	for _, arg := range args {
		if !strings.Contains(arg, "=") {
			arg += "=true"
		}
		list = append(list, arg)
	}
	return list
}
