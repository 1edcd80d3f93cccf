package main

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"
)

const (
	standInDataDir    = "/var/lib/rancher/k3s"
	standInKubeconfig = "/etc/rancher/k3s/k3s.yaml"
	standInConfigFile = "/etc/rancher/k3s/config.yaml"
	// With a database that replicas share, allows to make authorities that they cannot share.
	standInSingle = "K3S_STAND_IN_SINGLE"
)

// What k3s deploys into a cluster unless told not to. The stand-in deploys nothing.
var addOns = []string{"coredns", "local-storage", "metrics-server", "runtimes", "servicelb", "traefik"}

// standInOptions are k3s' flags as they come; most of them need no more than to be understood.
type standInOptions struct {
	dataDir          string
	kubeconfig       string
	kubeconfigMode   string
	disable          []string
	disableAgent     bool
	disableScheduler bool
	disableCloud     bool
	flannelBackend   string
	egressMode       string
	apiServerArgs    []string
	controllerArgs   []string
	serviceCIDR      string
	clusterCIDR      string
	clusterDNS       string
	clusterDomain    string
	nodePorts        string
	tlsSANs          []string
	bindAddress      string
	advertiseAddress string
	port             int
	token            string
	tokenFile        string
	store            storeOptions
	clusterInit      bool
	clusterReset     bool
	debug            bool
	verbosity        int
	logFile          string
	alsoStderr       bool

	// About parts that are not here.
	ignoredArgs  []string
	ignoredBools [3]bool
}

func (o *standInOptions) apiPort() int { return o.port + 1 }

func (o *standInOptions) flagSet() *pflag.FlagSet {
	f := pflag.NewFlagSet("k3s server", pflag.ContinueOnError)
	f.SortFlags = false
	f.Usage = func() { fmt.Printf("%s\n%s", standInHelp(), f.FlagUsages()) }
	text := func(to *string, name, short, variable, value, usage string) {
		if variable != "" {
			usage += " [$" + variable + "]"
		}
		f.StringVarP(to, name, short, value, usage)
		if set := os.Getenv(variable); set != "" {
			*to = set
		}
	}
	text(&o.dataDir, "data-dir", "d", "K3S_DATA_DIR", standInDataDir, "folder of the state, which is in server/ below")
	text(&o.kubeconfig, "write-kubeconfig", "o", "K3S_KUBECONFIG_OUTPUT", standInKubeconfig, "where the admin's kubeconfig is written")
	text(&o.kubeconfigMode, "write-kubeconfig-mode", "", "K3S_KUBECONFIG_MODE", "0600", "mode of that file")
	text(&o.token, "token", "t", "K3S_TOKEN", "", "shared secret of servers (made when there is none)")
	text(&o.tokenFile, "token-file", "", "K3S_TOKEN_FILE", "", "file with that secret")
	o.networkFlags(f)
	o.partFlags(f)
	addStoreFlags(f, &o.store, "K3S_DATASTORE")
	f.BoolVar(&o.clusterInit, "cluster-init", false, "keep the state in an etcd in this process (server/db/etcd) instead of SQLite")
	f.BoolVar(&o.clusterReset, "cluster-reset", false, "with --cluster-init, after the address has changed: let the etcd take the new one, and end")
	f.BoolVar(&o.debug, "debug", false, "log more")
	f.IntVarP(&o.verbosity, "v", "v", 0, "log level; at 0 only warnings and errors are logged")
	f.StringVarP(&o.logFile, "log", "l", "", "log to this file")
	f.BoolVar(&o.alsoStderr, "alsologtostderr", false, "log to standard error even with --log")
	return f
}

func (o *standInOptions) networkFlags(f *pflag.FlagSet) {
	f.StringVar(&o.bindAddress, "bind-address", "0.0.0.0", "address of the port below")
	f.IntVar(&o.port, "https-listen-port", 6443, "port of everything; the API server alone is at the next one, on 127.0.0.1")
	f.StringVar(&o.advertiseAddress, "advertise-address", "", "address in the endpoints of the Service kubernetes (default: that of the default route)")
	f.StringSliceVar(&o.tlsSANs, "tls-san", nil, "more names and addresses of the serving certificate; repeatable")
	f.StringVar(&o.serviceCIDR, "service-cidr", "10.43.0.0/16", "range of cluster IPs")
	f.StringVar(&o.clusterCIDR, "cluster-cidr", "10.42.0.0/16", "range of pod IPs")
	f.StringVar(&o.nodePorts, "service-node-port-range", "30000-32767", "range of node ports")
	f.StringVar(&o.clusterDNS, "cluster-dns", "", "address of the cluster's DNS; has no effect without nodes")
	f.StringVar(&o.clusterDomain, "cluster-domain", "cluster.local", "DNS domain")
	f.StringVar(&o.flannelBackend, "flannel-backend", "vxlan", "must be none: no nodes, no pod network")
	f.StringVar(&o.egressMode, "egress-selector-mode", "agent", "should be disabled: there are no nodes to tunnel to")
}

func (o *standInOptions) partFlags(f *pflag.FlagSet) {
	f.StringSliceVar(&o.disable, "disable", nil, "add-ons that k3s shall not deploy, of "+strings.Join(addOns, ", ")+"; the stand-in deploys none")
	f.BoolVar(&o.disableAgent, "disable-agent", false, "required: the stand-in cannot be a node")
	f.BoolVar(&o.disableScheduler, "disable-scheduler", false, "required: the stand-in has no scheduler")
	f.BoolVar(&o.disableCloud, "disable-cloud-controller", false, "the stand-in has no cloud controller")
	for i, name := range []string{"disable-network-policy", "disable-kube-proxy", "disable-helm-controller"} {
		f.BoolVar(&o.ignoredBools[i], name, false, "the stand-in has none")
	}
	list := func(to *[]string, usage string, names ...string) {
		for _, name := range names {
			f.StringArrayVar(to, name, nil, usage)
			// Each value begins its list anew at its first use, so they share one.
			f.Lookup(name).Value = f.Lookup(names[0]).Value
		}
	}
	list(&o.apiServerArgs, "NAME=VALUE of a kube-apiserver flag, instead of ours; repeatable", "kube-apiserver-arg")
	list(&o.controllerArgs, "NAME=VALUE of a kube-controller-manager flag, instead of ours; repeatable", "kube-controller-manager-arg", "kube-controller-arg")
	list(&o.ignoredArgs, "has no effect: there is none", "kube-scheduler-arg", "kube-cloud-controller-manager-arg", "kube-cloud-controller-arg")
}

// parseStandIn refuses what k3s may know and the stand-in does not, instead of acting as if it did.
func parseStandIn(args []string) (*standInOptions, error) {
	o := &standInOptions{}
	f := o.flagSet()
	if err := f.Parse(args); err != nil {
		return nil, err
	}
	if f.NArg() > 0 {
		return nil, fmt.Errorf("server takes no arguments, got %q", f.Args())
	}
	o.disable, o.tlsSANs = trimAll(o.disable), trimAll(o.tlsSANs)
	o.store.etcdPrefix = defaultEtcdPrefix
	o.store.compactInterval, o.store.datastorePollPeriod = 5*time.Minute, time.Second
	if o.debug {
		o.verbosity = max(o.verbosity, 1)
	}
	if err := errors.Join(o.checkParts(), o.checkNetwork(), o.store.check()); err != nil {
		return nil, err
	}
	var err error
	if o.dataDir, err = filepath.Abs(o.dataDir); err != nil {
		return nil, err
	}
	if o.token == "" && o.tokenFile != "" {
		content, err := os.ReadFile(o.tokenFile)
		if err != nil {
			return nil, fmt.Errorf("--token-file: %w", err)
		}
		o.token = strings.TrimSpace(string(content))
	}
	return o, nil
}

func (o *standInOptions) checkParts() error {
	var errs []error
	refuse := func(when bool, text string, args ...any) {
		if when {
			errs = append(errs, fmt.Errorf(text, args...))
		}
	}
	refuse(!o.disableAgent, "the stand-in cannot be a node: pass --disable-agent")
	refuse(!o.disableScheduler, "the stand-in has no scheduler: pass --disable-scheduler")
	refuse(o.flannelBackend != "none", "the stand-in has no pod network: pass --flannel-backend=none")
	for _, name := range o.disable {
		refuse(!slices.Contains(addOns, name), "--disable=%s: not an add-on the stand-in knows (%s)", name, strings.Join(addOns, ", "))
	}
	modes := []string{"disabled", "agent", "pod", "cluster"}
	refuse(!slices.Contains(modes, o.egressMode), "--egress-selector-mode=%s: not one of %s", o.egressMode, strings.Join(modes, ", "))
	refuse(o.clusterInit && o.store.endpoint != "", "--cluster-init and --datastore-endpoint exclude each other")
	refuse(o.clusterReset && !o.clusterInit, "--cluster-reset needs --cluster-init: only an etcd in this process can be reset")
	for _, variable := range []string{"K3S_URL", "K3S_CONFIG_FILE", "K3S_AGENT_TOKEN"} {
		refuse(os.Getenv(variable) != "", "$%s is set: the stand-in cannot join servers, have agents or read configuration files", variable)
	}
	_, err := os.Stat(standInConfigFile)
	refuse(err == nil, "%s exists: the stand-in reads flags only", standInConfigFile)
	_, err = o.mode()
	refuse(err != nil, "--write-kubeconfig-mode=%s: not an octal number", o.kubeconfigMode)
	return errors.Join(errs...)
}

func (o *standInOptions) checkNetwork() error {
	if o.port < 1 || o.port > 65534 {
		return fmt.Errorf("--https-listen-port=%d: must be between 1 and 65534, the API server takes the next one", o.port)
	}
	for flag, address := range map[string]string{"bind-address": o.bindAddress, "advertise-address": o.advertiseAddress, "cluster-dns": o.clusterDNS} {
		if address != "" && net.ParseIP(address) == nil {
			return fmt.Errorf("--%s=%s: not an IP address", flag, address)
		}
	}
	_, err := o.serviceIPs()
	return err
}

func (o *standInOptions) mode() (os.FileMode, error) {
	mode, err := strconv.ParseUint(o.kubeconfigMode, 8, 32)
	return os.FileMode(mode) & os.ModePerm, err
}

// serviceIPs are the addresses of the Service kubernetes: the first of each range.
func (o *standInOptions) serviceIPs() ([]string, error) {
	var ips []string
	for _, text := range strings.Split(o.serviceCIDR, ",") {
		prefix, err := netip.ParsePrefix(strings.TrimSpace(text))
		if err != nil {
			return nil, fmt.Errorf("--service-cidr=%s: %w", o.serviceCIDR, err)
		}
		ips = append(ips, prefix.Masked().Addr().Next().String())
	}
	return ips, nil
}

// warnings say what k3s would do with these flags and the stand-in does not.
func (o *standInOptions) warnings() []string {
	var list []string
	var deployed []string
	for _, name := range addOns {
		if !slices.Contains(o.disable, name) {
			deployed = append(deployed, name)
		}
	}
	if len(deployed) > 0 {
		list = append(list, "k3s would deploy "+strings.Join(deployed, ", ")+"; nothing is deployed here")
	}
	if !o.disableCloud {
		list = append(list, "k3s would run its cloud controller; there is none here")
	}
	if o.egressMode != "disabled" {
		list = append(list, "today's k3s would send calls to webhooks and aggregated APIs through tunnels to nodes unless --egress-selector-mode=disabled; they go directly here")
	}
	if len(o.ignoredArgs) > 0 {
		list = append(list, "no scheduler and no cloud controller here for these arguments: "+strings.Join(o.ignoredArgs, " "))
	}
	if o.logFile != "" && o.alsoStderr {
		list = append(list, "with --alsologtostderr the log goes to standard error only, not to "+o.logFile)
	}
	return list
}

func trimAll(list []string) []string {
	var trimmed []string
	for _, text := range list {
		if text = strings.TrimSpace(text); text != "" {
			trimmed = append(trimmed, text)
		}
	}
	return trimmed
}
