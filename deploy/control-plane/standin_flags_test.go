package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// The command line of the original manifest, unchanged.
var originalArgs = []string{
	"--write-kubeconfig=/k3s-config/kube-config.yaml", "--data-dir=/data", "--disable=traefik,servicelb,metrics-server,local-storage",
	"--disable-network-policy", "--disable-agent", "--disable-scheduler", "--disable-cloud-controller", "--flannel-backend=none",
	"--kube-controller-manager-arg=controllers=*,-nodeipam,-nodelifecycle,-persistentvolume-binder,-attachdetach,-persistentvolume-expander,-cloud-node-lifecycle",
	"--service-cidr=10.96.0.0/12",
}

func with(more ...string) []string { return slices.Concat(originalArgs, more) }

func mustParse(t *testing.T, args []string) *standInOptions {
	t.Helper()
	o, err := parseStandIn(args)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func standInFlags(t *testing.T, o *standInOptions, shared bool) (server, controllers []string) {
	t.Helper()
	l := &layout{tls: "/data/server/tls", cred: "/data/server/cred", advertise: "10.0.0.9"}
	args, err := standInArguments(o, l, &store{flags: map[string]string{"etcd-servers": "unix:///s"}, shared: shared})
	if err != nil {
		t.Fatal(err)
	}
	return args.apiServer, args.controllerManager
}

func wantFlags(t *testing.T, flags []string, want ...string) {
	t.Helper()
	for _, flag := range want {
		if !slices.Contains(flags, flag) {
			t.Errorf("no %s in %v", flag, flags)
		}
	}
}

func TestOriginalCommandLine(t *testing.T) {
	o := mustParse(t, originalArgs)
	if o.dataDir != "/data" || o.kubeconfig != "/k3s-config/kube-config.yaml" || o.apiPort() != 6444 {
		t.Errorf("%+v", o)
	}
	server, controllers := standInFlags(t, o, false)
	wantFlags(t, server, "--service-cluster-ip-range=10.96.0.0/12", "--anonymous-auth=false", "--bind-address=127.0.0.1", "--secure-port=6444",
		"--api-audiences=https://kubernetes.default.svc.cluster.local,k3s", "--requestheader-allowed-names=system:auth-proxy",
		"--service-account-key-file=/data/server/tls/service.key", "--advertise-address=10.0.0.9")
	for _, flag := range server {
		if strings.HasPrefix(flag, "--requestheader-uid-headers") || strings.HasPrefix(flag, "--endpoint-reconciler-type") {
			t.Error(flag + " is not set by k3s")
		}
	}
	wantFlags(t, controllers, "--leader-elect=false",
		"--controllers=*,-nodeipam,-nodelifecycle,-persistentvolume-binder,-attachdetach,-persistentvolume-expander,-cloud-node-lifecycle")
	if ips, err := o.serviceIPs(); err != nil || !slices.Equal(ips, []string{"10.96.0.1"}) {
		t.Error(ips, err)
	}
}

func TestOverrides(t *testing.T) {
	o := mustParse(t, with("--kube-apiserver-arg=anonymous-auth=true", "--kube-apiserver-arg", "requestheader-uid-headers=X-Remote-Uid",
		"--kube-apiserver-arg=enable-aggregator-routing", "--kube-controller-arg=concurrent-gc-syncs=1", "--cluster-domain=c.test", "--https-listen-port=7000"))
	server, controllers := standInFlags(t, o, true)
	wantFlags(t, server, "--anonymous-auth=true", "--requestheader-uid-headers=X-Remote-Uid", "--enable-aggregator-routing=true",
		"--service-account-issuer=https://kubernetes.default.svc.c.test", "--secure-port=7001")
	if slices.Contains(server, "--anonymous-auth=false") {
		t.Error("an override adds to our value")
	}
	// Both names of the flag fill one list.
	wantFlags(t, controllers, "--concurrent-gc-syncs=1", "--leader-elect=true",
		"--controllers=*,-nodeipam,-nodelifecycle,-persistentvolume-binder,-attachdetach,-persistentvolume-expander,-cloud-node-lifecycle")
}

func TestWithoutOverrides(t *testing.T) {
	o := mustParse(t, []string{"--disable-agent", "--disable-scheduler", "--flannel-backend=none"})
	if o.dataDir != standInDataDir || o.kubeconfig != standInKubeconfig || o.serviceCIDR != "10.43.0.0/16" {
		t.Errorf("%+v", o)
	}
	_, controllers := standInFlags(t, o, false)
	wantFlags(t, controllers, "--controllers=*,tokencleaner,-service,-route,-cloud-node-lifecycle", "--configure-cloud-routes=false")
	text := strings.Join(o.warnings(), "\n")
	for _, word := range []string{"coredns", "traefik", "cloud controller", "--egress-selector-mode=disabled"} {
		if !strings.Contains(text, word) {
			t.Errorf("no warning of %s: %s", word, text)
		}
	}
	all := mustParse(t, with("--egress-selector-mode=disabled", "--disable", "coredns", "--disable=runtimes"))
	if w := all.warnings(); len(w) != 0 {
		t.Error(w)
	}
}

func TestRefused(t *testing.T) {
	for want, args := range map[string][]string{
		"unknown flag: --docker":   with("--docker"),
		"unknown flag: --kine-tls": with("--kine-tls"),
		"takes no arguments":       with("extra"),
		"--disable-agent":          {"--disable-scheduler", "--flannel-backend=none"},
		"--disable-scheduler":      {"--disable-agent", "--flannel-backend=none"},
		"--flannel-backend=none":   {"--disable-agent", "--disable-scheduler"},
		"--disable=grafana":        with("--disable=grafana"),
		"exclude each other":       with("--cluster-init", "--datastore-endpoint=https://e:2379"),
		"--cluster-reset needs":    with("--cluster-reset"),
		"--write-kubeconfig-mode":  with("--write-kubeconfig-mode=rw"),
		"--https-listen-port":      with("--https-listen-port=65535"),
		"--bind-address":           with("--bind-address=localhost"),
		"--service-cidr":           with("--service-cidr=10.0.0.0"),
		"--egress-selector-mode":   with("--egress-selector-mode=on"),
	} {
		if _, err := parseStandIn(args); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
}

func TestStandInEnvironment(t *testing.T) {
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte("from-file\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("K3S_DATA_DIR", "/elsewhere")
	t.Setenv("K3S_KUBECONFIG_OUTPUT", "/kubeconfig")
	t.Setenv("K3S_TOKEN_FILE", token)
	t.Setenv("K3S_DATASTORE_ENDPOINT", "mysql://u:p@tcp(db)/one")
	base := []string{"--disable-agent", "--disable-scheduler", "--flannel-backend=none"}
	o := mustParse(t, base)
	if o.dataDir != "/elsewhere" || o.kubeconfig != "/kubeconfig" || o.token != "from-file" || o.store.endpoint != "mysql://u:p@tcp(db)/one" {
		t.Errorf("%+v", o)
	}
	if o = mustParse(t, append(base, "-d", "/data", "--token=given")); o.dataDir != "/data" || o.token != "given" {
		t.Errorf("%+v", o)
	}
	t.Setenv("K3S_URL", "https://server:6443")
	if _, err := parseStandIn(base); err == nil || !strings.Contains(err.Error(), "$K3S_URL") {
		t.Error(err)
	}
}

func TestSaysWhatItIs(t *testing.T) {
	for _, text := range []string{standInVersion(), standInHelp()} {
		if !strings.Contains(text, "Portico's k3s stand-in for tests, not k3s") || !strings.Contains(text, "Kubernetes v") {
			t.Error(text)
		}
	}
	for _, args := range [][]string{{"agent"}, {"server", "--unknown"}, {"kubectl", "get", "pods"}} {
		if code := standInMain(args); code != 2 {
			t.Errorf("%v ends with %d", args, code)
		}
	}
}
