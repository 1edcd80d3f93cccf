// The control plane of one virtual cluster in one process: kube-apiserver, kube-controller-manager and kine on SQLite.
//
// One process needs two thirds of the memory of three. There is no scheduler and no node: pods run on the host cluster.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/pflag"
	"k8s.io/component-base/version"
	"k8s.io/klog/v2"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	controllers "k8s.io/kubernetes/cmd/kube-controller-manager/app"
)

type options struct {
	dataDir             string
	pkiDir              string
	securePort          int
	serviceCIDR         string
	clusterDomain       string
	advertiseAddress    string
	frontProxyNames     []string
	apiServerArgs       []string
	controllerArgs      []string
	verbosity           int
	livenessWait        time.Duration
	compactInterval     time.Duration
	datastorePollPeriod time.Duration
}

func main() {
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
	err = run(o)
	klog.Flush()
	if err != nil {
		fmt.Fprintf(os.Stderr, "control-plane: %v\n", err)
		os.Exit(1)
	}
}

// parse returns nil options when only the version was asked for.
func parse(args []string) (*options, error) {
	o := &options{}
	f := pflag.NewFlagSet("control-plane", pflag.ContinueOnError)
	f.SortFlags = false
	f.StringVar(&o.dataDir, "data-dir", "/data", "folder of the database (db/state.db) and of run-time files; may be empty")
	f.StringVar(&o.pkiDir, "pki-dir", "/pki", "folder with "+strings.Join(pkiFiles, ", "))
	f.IntVar(&o.securePort, "secure-port", 6443, "port of the API")
	f.StringVar(&o.serviceCIDR, "service-cidr", "10.96.0.0/16", "range of cluster IPs; must be that of the host cluster")
	f.StringVar(&o.clusterDomain, "cluster-domain", "cluster.local", "DNS domain; part of the service account issuer")
	f.StringVar(&o.advertiseAddress, "advertise-address", "", "address others reach this API server at (default: that of the default route)")
	f.StringSliceVar(&o.frontProxyNames, "front-proxy-allowed-names", []string{"portico-gateway"}, "common names whose front-proxy certificate may set X-Remote headers")
	f.StringArrayVar(&o.apiServerArgs, "apiserver-arg", nil, "NAME=VALUE of a kube-apiserver flag, instead of ours; repeatable")
	f.StringArrayVar(&o.controllerArgs, "controller-manager-arg", nil, "NAME=VALUE of a kube-controller-manager flag, instead of ours; repeatable")
	f.IntVar(&o.verbosity, "v", 0, "log level; at 0 only warnings and errors are logged")
	f.DurationVar(&o.livenessWait, "liveness-timeout", 2*time.Minute, "give up when the API server is not live after this time")
	f.DurationVar(&o.compactInterval, "compact-interval", 5*time.Minute, "how often old revisions are removed from the database")
	f.DurationVar(&o.datastorePollPeriod, "datastore-poll-interval", time.Second, "how often the database is read for writes of others")
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

// run returns nil only after a signal and an orderly end.
func run(o *options) error {
	if err := checkPKI(o.pkiDir); err != nil {
		return err
	}
	if err := setUpLogging(o.verbosity); err != nil {
		return err
	}
	// The API server installs its own handler for the same signals and drains. This one is to tell an end from a failure.
	signalled, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()

	files, err := writeRuntimeFiles(o)
	if err != nil {
		return err
	}
	store, err := openDatastore(o, files.socket)
	if err != nil {
		return fmt.Errorf("database: %w", err)
	}
	// Closed last: the API server writes until its end.
	defer store.close()

	args, err := makeArguments(o, files)
	if err != nil {
		return err
	}
	// In this order: making the controller manager changes a feature gate, which must not be on a flag set yet.
	controllerManager := controllers.NewControllerManagerCommand()
	controllerManager.SetArgs(args.controllerManager)
	server := apiserver.NewAPIServerCommand()
	server.SetArgs(args.apiServer)
	server.SilenceErrors, controllerManager.SilenceErrors = true, true

	ended := make(chan error, 2)
	var serverDone sync.WaitGroup
	serverDone.Add(1)
	go func() {
		defer serverDone.Done()
		ended <- describe("kube-apiserver", server.Execute())
	}()
	if err := awaitLive(signalled, o, files, ended); err != nil {
		if signalled.Err() != nil {
			serverDone.Wait()
			return nil
		}
		return err
	}
	// Its command takes no context: it ends with the process.
	go func() { ended <- describe("kube-controller-manager", controllerManager.Execute()) }()

	select {
	case err := <-ended:
		if signalled.Err() == nil {
			return err
		}
	case <-signalled.Done():
	}
	serverDone.Wait()
	return nil
}

// describe makes an error of every end, since none of the parts may end by itself.
func describe(part string, err error) error {
	if err == nil {
		return fmt.Errorf("%s ended", part)
	}
	return fmt.Errorf("%s: %w", part, err)
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
