package main

import (
	"context"
	"errors"
	"net"
	"net/http"

	"github.com/spf13/pflag"
	utilerrors "k8s.io/apimachinery/pkg/util/errors"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	genericserver "k8s.io/apiserver/pkg/server"
	"k8s.io/client-go/rest"
	basecompatibility "k8s.io/component-base/compatibility"
	"k8s.io/component-base/featuregate"
	logsapi "k8s.io/component-base/logs/api/v1"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	serveroptions "k8s.io/kubernetes/cmd/kube-apiserver/app/options"
)

// apiServer is kube-apiserver with a handle on its insides, which its command does not give.
type apiServer struct {
	// run returns after the end of the context and an orderly end.
	run func(context.Context) error
	// The whole chain: authentication, authorization, admission.
	handler       http.Handler
	authenticator authenticator.Request
}

// newAPIServer does what kube-apiserver's command does with these flags. The public port, when there is one, is where
// others reach the server: it is published in the endpoints of the Service kubernetes.
func newAPIServer(ctx context.Context, flags []string, publicPort int, bound *storeBound, relay *metricsRelay) (*apiServer, error) {
	completed, err := completeOptions(ctx, flags)
	if err != nil {
		return nil, err
	}
	config, err := apiserver.NewConfig(completed)
	if err != nil {
		return nil, err
	}
	generic := config.KubeAPIs.ControlPlane.Generic
	if publicPort != 0 {
		// By now the server's own client has the true address.
		generic.SecureServing.Listener = publicListener{generic.SecureServing.Listener, publicPort}
	}
	// The aggregator's handlers are the first, those of the others only behind them.
	aggregator := config.Aggregator.GenericConfig
	build := aggregator.BuildHandlerChainFunc
	aggregator.BuildHandlerChainFunc = func(handler http.Handler, c *genericserver.Config) http.Handler {
		if bound != nil {
			handler = bound.wrap(handler, c.Serializer)
		}
		if relay != nil {
			handler = relay.wrap(handler)
		}
		return build(handler, c)
	}
	chain, err := config.Complete()
	if err != nil {
		return nil, err
	}
	server, err := apiserver.CreateServerChain(chain)
	if err != nil {
		return nil, err
	}
	prepared, err := server.PrepareRun()
	if err != nil {
		return nil, err
	}
	return &apiServer{
		run:           prepared.Run,
		handler:       server.GenericAPIServer.Handler,
		authenticator: generic.Authentication.Authenticator,
	}, nil
}

func completeOptions(ctx context.Context, flags []string) (serveroptions.CompletedOptions, error) {
	o := serveroptions.NewServerRunOptions()
	set := pflag.NewFlagSet("kube-apiserver", pflag.ContinueOnError)
	set.Usage = func() {}
	for _, named := range o.Flags().FlagSets {
		set.AddFlagSet(named)
	}
	if err := set.Parse(flags); err != nil {
		return serveroptions.CompletedOptions{}, err
	}
	registry := o.GenericServerRunOptions.ComponentGlobalsRegistry
	if err := registry.Set(); err != nil {
		return serveroptions.CompletedOptions{}, err
	}
	// The server's own clients should not log what it warns itself of.
	rest.SetDefaultWarningHandler(rest.NoWarnings{})
	gates := registry.FeatureGateFor(basecompatibility.DefaultKubeComponent)
	if err := logsapi.ValidateAndApply(o.Logs, gates); err != nil {
		return serveroptions.CompletedOptions{}, err
	}
	completed, err := o.Complete(ctx)
	if err != nil {
		return serveroptions.CompletedOptions{}, err
	}
	if errs := completed.Validate(); len(errs) != 0 {
		return serveroptions.CompletedOptions{}, utilerrors.NewAggregate(errs)
	}
	mutable, ok := gates.(featuregate.MutableFeatureGate)
	if !ok {
		return serveroptions.CompletedOptions{}, errors.New("the feature gates cannot be counted")
	}
	mutable.AddMetrics()
	registry.AddMetrics()
	return completed, nil
}

// publicListener accepts on one port and tells another.
type publicListener struct {
	net.Listener
	port int
}

func (l publicListener) Addr() net.Addr {
	if tcp, ok := l.Listener.Addr().(*net.TCPAddr); ok {
		return &net.TCPAddr{IP: tcp.IP, Port: l.port, Zone: tcp.Zone}
	}
	return l.Listener.Addr()
}
