// Enforces NetworkPolicies on the one node of the local cluster, whose network plugin does not: it follows pods, namespaces
// and policies and keeps iptables' rules for pods with IPv4 addresses. A pod is under its policies once its address is known,
// a moment after it began to run; connections that exist already go on.
package main

import (
	"context"
	"flag"
	"fmt"
	"os/signal"
	"syscall"
	"time"

	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/klog/v2"
)

const (
	// Events that come together make one change.
	gather = 50 * time.Millisecond
	// How often the rules are looked after without an event, and tried again after a failure.
	repeat = 5 * time.Second
	// No command of iptables takes longer.
	longest = 30 * time.Second
)

func main() {
	kubeconfig := flag.String("kubeconfig", "", "kubeconfig with rights to read pods, namespaces and policies")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if err := enforce(ctx, *kubeconfig); err != nil {
		klog.ErrorS(err, "policies are not enforced any more")
		klog.FlushAndExit(klog.ExitFlushTimeout, 1)
	}
}

func enforce(ctx context.Context, kubeconfig string) error {
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return err
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	return watch(ctx, client, &firewall{})
}

// watch keeps the kernel's rules until the context ends.
func watch(ctx context.Context, client kubernetes.Interface, kernel *firewall) error {
	factory := informers.NewSharedInformerFactory(client, 0)
	changed := make(chan struct{}, 1)
	tell := func() {
		select {
		case changed <- struct{}{}:
		default:
		}
	}
	handler := cache.ResourceEventHandlerFuncs{
		AddFunc:    func(any) { tell() },
		UpdateFunc: func(any, any) { tell() },
		DeleteFunc: func(any) { tell() },
	}
	for _, informer := range []cache.SharedIndexInformer{
		factory.Core().V1().Pods().Informer(),
		factory.Core().V1().Namespaces().Informer(),
		factory.Networking().V1().NetworkPolicies().Informer(),
	} {
		if _, err := informer.AddEventHandler(handler); err != nil {
			return err
		}
	}
	factory.Start(ctx.Done())
	for kind, synced := range factory.WaitForCacheSync(ctx.Done()) {
		if !synced && ctx.Err() == nil {
			return fmt.Errorf("%v cannot be listed", kind)
		}
	}
	follow(ctx, factory, kernel, changed)
	return nil
}

// follow applies what there is, at each change and now and then.
func follow(ctx context.Context, factory informers.SharedInformerFactory, kernel *firewall, changed <-chan struct{}) {
	for ctx.Err() == nil {
		if err := once(ctx, factory, kernel); err != nil && ctx.Err() == nil {
			klog.ErrorS(err, "will retry")
			// What is there is not known any more.
			kernel.applied = nil
		}
		select {
		case <-ctx.Done():
		case <-changed:
			time.Sleep(gather)
		case <-time.After(repeat):
		}
	}
}

func once(ctx context.Context, factory informers.SharedInformerFactory, kernel *firewall) error {
	s := state{namespaces: map[string]labels.Set{}}
	namespaces, err := factory.Core().V1().Namespaces().Lister().List(labels.Everything())
	if err != nil {
		return err
	}
	for _, namespace := range namespaces {
		s.namespaces[namespace.Name] = namespace.Labels
	}
	pods, err := factory.Core().V1().Pods().Lister().List(labels.Everything())
	if err != nil {
		return err
	}
	for _, p := range pods {
		if own, counts := podOf(p); counts {
			s.pods = append(s.pods, own)
		}
	}
	if s.policies, err = factory.Networking().V1().NetworkPolicies().Lister().List(labels.Everything()); err != nil {
		return err
	}
	all, err := render(s)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, longest)
	defer cancel()
	return kernel.apply(ctx, all)
}
