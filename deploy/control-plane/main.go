// The control plane of one virtual cluster in one process: kube-apiserver, kube-controller-manager and kine.
//
// One process needs two thirds of the memory of three. There is no scheduler and no node: pods run on the host cluster.
// Called as k3s it is a stand-in for k3s in tests: see standin.go.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"strings"
	"time"
	// The image has no zones. Kubernetes embeds them in its main packages, which are not ours: without them every
	// timeZone of a CronJob is unknown, and every zone in CEL.
	_ "time/tzdata"

	"github.com/spf13/pflag"
	"k8s.io/component-base/version"
)

type options struct {
	dataDir          string
	pkiDir           string
	securePort       int
	serviceCIDR      string
	clusterDomain    string
	advertiseAddress string
	frontProxyNames  []string
	apiServerArgs    []string
	controllerArgs   []string
	leaderElect      choice
	verbosity        int
	livenessWait     time.Duration
	store            storeOptions
}

func main() {
	if filepath.Base(os.Args[0]) == "k3s" {
		os.Exit(standInMain(os.Args[1:]))
	}
	o, err := parse(os.Args[1:])
	switch {
	case errors.Is(err, pflag.ErrHelp):
		return
	case err != nil:
		fmt.Fprintf(os.Stderr, "control-plane: %v\n", err)
		os.Exit(2)
	case o == nil:
		fmt.Printf("control-plane, Kubernetes %s, kine %s\n", version.Get().GitVersion, moduleVersion("github.com/k3s-io/kine"))
		return
	}
	os.Exit(untilSignal("control-plane", func(ctx context.Context) error { return run(ctx, o) }))
}

// parse returns nil options when only the version was asked for.
func parse(args []string) (*options, error) {
	o := &options{}
	f := pflag.NewFlagSet("control-plane", pflag.ContinueOnError)
	f.SortFlags = false
	f.StringVar(&o.dataDir, "data-dir", "/data", "folder of the database (db/state.db, when it is SQLite) and of run-time files; may be empty")
	f.StringVar(&o.pkiDir, "pki-dir", "/pki", "folder with "+strings.Join(pkiFiles, ", ")+"; and "+aggregatorCert+" with "+aggregatorKey+" for extension API servers")
	f.IntVar(&o.securePort, "secure-port", 6443, "port of the API")
	f.StringVar(&o.serviceCIDR, "service-cidr", "10.96.0.0/16", "range of cluster IPs; must be that of the host cluster")
	f.StringVar(&o.clusterDomain, "cluster-domain", "cluster.local", "DNS domain; part of the service account issuer")
	f.StringVar(&o.advertiseAddress, "advertise-address", "", "address others reach this API server at (default: that of the default route)")
	f.StringSliceVar(&o.frontProxyNames, "front-proxy-allowed-names", []string{"portico-gateway"}, "common names whose front-proxy certificate may set X-Remote headers")
	f.StringArrayVar(&o.apiServerArgs, "apiserver-arg", nil, "NAME=VALUE of a kube-apiserver flag, instead of ours; repeatable")
	f.StringArrayVar(&o.controllerArgs, "controller-manager-arg", nil, "NAME=VALUE of a kube-controller-manager flag, instead of ours; repeatable")
	addStoreFlags(f, &o.store, "PORTICO_DATASTORE")
	f.StringVar(&o.store.etcdPrefix, "etcd-prefix", defaultEtcdPrefix, "what the keys begin with; several virtual clusters in one etcd need different ones")
	f.Var(&o.leaderElect, "leader-elect", "whether controllers wait for a lease, so that several replicas are safe (default: unless the database is SQLite)")
	f.Lookup("leader-elect").NoOptDefVal = "true"
	f.IntVar(&o.verbosity, "v", 0, "log level; at 0 only warnings and errors are logged")
	f.DurationVar(&o.livenessWait, "liveness-timeout", 2*time.Minute, "give up when the API server is not live after this time")
	f.DurationVar(&o.store.compactInterval, "compact-interval", 5*time.Minute, "how often old revisions are removed from the database")
	f.DurationVar(&o.store.datastorePollPeriod, "datastore-poll-interval", time.Second, "how often the database is read for writes of others")
	addBoundFlag(f, &o.store)
	showVersion := f.Bool("version", false, "print the version")
	if err := f.Parse(args); err != nil {
		return nil, err
	}
	if f.NArg() > 0 {
		return nil, fmt.Errorf("takes no arguments, got %q", f.Args())
	}
	if *showVersion {
		return nil, nil
	}
	return o, nil
}

func run(ctx context.Context, o *options) error {
	if err := checkPKI(o.pkiDir); err != nil {
		return err
	}
	if err := o.store.check(); err != nil {
		return err
	}
	endpoint, err := parseEndpoint(o.store.endpoint)
	if err != nil {
		return err
	}
	if err := setUpLogging(o.verbosity, endpoint.secrets); err != nil {
		return err
	}
	files, err := writeRuntimeFiles(o)
	if err != nil {
		return err
	}
	s, err := openStore(ctx, &o.store, endpoint, filepath.Join(o.dataDir, "db"), files.socket)
	if err != nil {
		return fmt.Errorf("database: %w", err)
	}
	// Closed last: the API server writes until its end.
	defer s.close()

	args, err := makeArguments(o, files, s)
	if err != nil {
		return err
	}
	listenForPolicyProbe(ctx, policyProbePorts)
	relay := startMetricsRelay(ctx, o.pkiDir, os.Getenv(metricsAddressVariable), metricsRelayPort)
	return serve(ctx, &plane{arguments: *args, bound: s.bound, relay: relay, probe: &prober{
		port: o.securePort, caFile: filepath.Join(o.pkiDir, "server-ca.crt"), serverName: files.serverName, patience: o.livenessWait,
	}})
}

// choice is a flag that may be left open.
type choice string

func (c *choice) Set(text string) error {
	value, err := strconv.ParseBool(text)
	*c = choice(strconv.FormatBool(value))
	return err
}

func (c *choice) String() string { return string(*c) }
func (c *choice) Type() string   { return "bool" }

func (c choice) decide(unset bool) bool {
	if c == "" {
		return unset
	}
	return c == "true"
}

func moduleVersion(path string) string {
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, m := range info.Deps {
			if m.Path == path {
				return m.Version
			}
		}
	}
	return "unknown"
}
