package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/klog/v2"
)

const (
	provisionerName    = "portico.dev/host-path"
	claimProvisioner   = "volume.kubernetes.io/storage-provisioner"
	volumeProvisioner  = "pv.kubernetes.io/provisioned-by"
	provisionerTimeout = 10 * time.Second
)

// provisioner makes a folder of the one node into a PersistentVolume for each claim that asks for it,
// and removes both when the claim is gone. It binds at once: there is no second node to choose from.
type provisioner struct {
	client kubernetes.Interface
	root   string
	claims corelisters.PersistentVolumeClaimLister
	pvs    corelisters.PersistentVolumeLister
	queue  workqueue.TypedRateLimitingInterface[string]
}

func runProvisioner() int {
	kubeconfig := flag.String("kubeconfig", "", "kubeconfig with rights on claims and volumes")
	root := flag.String("root", "", "folder that holds the volumes")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if err := provision(ctx, *kubeconfig, *root); err != nil {
		klog.ErrorS(err, "provisioner failed")
		return 1
	}
	return 0
}

func provision(ctx context.Context, kubeconfig, root string) error {
	if !filepath.IsAbs(root) {
		return fmt.Errorf("--root %q is not an absolute path", root)
	}
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return err
	}
	config.QPS, config.Burst = 200, 400
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	factory := informers.NewSharedInformerFactory(client, 10*time.Minute)
	claims, pvs := factory.Core().V1().PersistentVolumeClaims(), factory.Core().V1().PersistentVolumes()
	p := &provisioner{
		client: client, root: root, claims: claims.Lister(), pvs: pvs.Lister(),
		queue: workqueue.NewTypedRateLimitingQueue(workqueue.DefaultTypedControllerRateLimiter[string]()),
	}
	// One queue for both kinds: claims have a slash in their key, volumes none.
	enqueue := cache.ResourceEventHandlerFuncs{
		AddFunc:    p.enqueue,
		UpdateFunc: func(_, obj any) { p.enqueue(obj) },
	}
	if _, err := claims.Informer().AddEventHandler(enqueue); err != nil {
		return err
	}
	if _, err := pvs.Informer().AddEventHandler(enqueue); err != nil {
		return err
	}
	factory.Start(ctx.Done())
	factory.WaitForCacheSync(ctx.Done())
	go func() { <-ctx.Done(); p.queue.ShutDown() }()
	for p.next(ctx) {
	}
	return nil
}

func (p *provisioner) enqueue(obj any) {
	if key, err := cache.MetaNamespaceKeyFunc(obj); err == nil {
		p.queue.Add(key)
	}
}

func (p *provisioner) next(ctx context.Context) bool {
	key, stopping := p.queue.Get()
	if stopping {
		return false
	}
	defer p.queue.Done(key)
	ctx, cancel := context.WithTimeout(ctx, provisionerTimeout)
	defer cancel()
	if err := p.sync(ctx, key); err != nil {
		klog.ErrorS(err, "will retry", "object", key)
		p.queue.AddRateLimited(key)
		return true
	}
	p.queue.Forget(key)
	return true
}

func (p *provisioner) sync(ctx context.Context, key string) error {
	namespace, name, err := cache.SplitMetaNamespaceKey(key)
	if err != nil {
		return nil
	}
	if namespace == "" {
		pv, err := p.pvs.Get(name)
		if err != nil {
			return ignoreNotFound(err)
		}
		return p.reclaim(ctx, pv)
	}
	claim, err := p.claims.PersistentVolumeClaims(namespace).Get(name)
	if err != nil {
		return ignoreNotFound(err)
	}
	return p.fulfil(ctx, claim)
}

func (p *provisioner) fulfil(ctx context.Context, claim *v1.PersistentVolumeClaim) error {
	if claim.Annotations[claimProvisioner] != provisionerName || claim.Spec.VolumeName != "" || claim.DeletionTimestamp != nil {
		return nil
	}
	if claim.Spec.VolumeMode != nil && *claim.Spec.VolumeMode == v1.PersistentVolumeBlock {
		return nil
	}
	name := "pvc-" + string(claim.UID)
	path := filepath.Join(p.root, name)
	if err := os.MkdirAll(path, 0o777); err != nil {
		return err
	}
	// The umask took bits away, and pods run as any user.
	if err := os.Chmod(path, 0o777); err != nil {
		return err
	}
	kind := v1.HostPathDirectory
	_, err := p.client.CoreV1().PersistentVolumes().Create(ctx, &v1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{Name: name, Annotations: map[string]string{volumeProvisioner: provisionerName}},
		Spec: v1.PersistentVolumeSpec{
			Capacity:                      v1.ResourceList{v1.ResourceStorage: claim.Spec.Resources.Requests[v1.ResourceStorage]},
			AccessModes:                   claim.Spec.AccessModes,
			PersistentVolumeReclaimPolicy: v1.PersistentVolumeReclaimDelete,
			StorageClassName:              *claim.Spec.StorageClassName,
			VolumeMode:                    claim.Spec.VolumeMode,
			PersistentVolumeSource:        v1.PersistentVolumeSource{HostPath: &v1.HostPathVolumeSource{Path: path, Type: &kind}},
			ClaimRef: &v1.ObjectReference{
				APIVersion: "v1", Kind: "PersistentVolumeClaim",
				Namespace: claim.Namespace, Name: claim.Name, UID: claim.UID,
			},
		},
	}, metav1.CreateOptions{})
	if apierrors.IsAlreadyExists(err) {
		return nil
	}
	return err
}

func (p *provisioner) reclaim(ctx context.Context, pv *v1.PersistentVolume) error {
	if pv.Annotations[volumeProvisioner] != provisionerName || pv.Spec.HostPath == nil ||
		pv.Status.Phase != v1.VolumeReleased || pv.Spec.PersistentVolumeReclaimPolicy != v1.PersistentVolumeReclaimDelete {
		return nil
	}
	// Never follow a volume that someone pointed elsewhere: only the folder that fulfil would have made.
	if path := filepath.Join(p.root, pv.Name); pv.Spec.HostPath.Path == path {
		if err := os.RemoveAll(path); err != nil {
			return err
		}
	}
	return ignoreNotFound(p.client.CoreV1().PersistentVolumes().Delete(ctx, pv.Name, metav1.DeleteOptions{Preconditions: metav1.NewUIDPreconditions(string(pv.UID))}))
}

func ignoreNotFound(err error) error {
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}
