package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/endpoints/handlers/responsewriters"
	"k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/klog/v2"
)

const (
	// Where Portico reads how full the store is. As for every other path, authorization says who else may.
	storePath = "/portico/store"

	insufficientStorage metav1.StatusReason = "InsufficientStorage"
)

// growth is what a request does to the store.
type growth int

const (
	growsNothing growth = iota
	// A change of an object that is there.
	growsLittle
	growsByAnObject
	// Nothing waits for an event, and there is no end of them: nobody may add any.
	growsByAnEvent
)

// Those without whom a control plane does not start, or Portico takes what is there for gone: without its roles the API
// server is never ready, and without its Node the garbage collector of pods deletes them. What they add is little, and does
// not follow a tenant's will.
var pillars = []string{"system:apiserver", "system:kube-controller-manager", "system:portico"}

// Controllers, which take finalizers off and write status: without them no namespace is ever gone.
const controllerPrefix = "system:serviceaccount:kube-system:"

// Subresources that lead to a pod, a Service or a node instead of to the store.
var connections = []string{"attach", "exec", "portforward", "proxy"}

// wrap goes around what is behind authentication and authorization: who may not do it is told that, as always.
func (b *storeBound) wrap(next http.Handler, s runtime.NegotiatedSerializer) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == storePath {
			b.show(w, r)
			return
		}
		now := b.fill()
		if !now.full {
			next.ServeHTTP(w, r)
			return
		}
		info, _ := request.RequestInfoFrom(r.Context())
		if info == nil || now.permits(growthOf(info, r), callerOf(r)) {
			next.ServeHTTP(w, r)
			return
		}
		gv := schema.GroupVersion{Group: info.APIGroup, Version: info.APIVersion}
		responsewriters.ErrorNegotiated(b.refusal(now, info), s, gv, w, r)
	})
}

func (b *storeBound) show(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet {
		w.Header().Set("Allow", http.MethodGet)
		http.Error(w, "only GET", http.StatusMethodNotAllowed)
		return
	}
	now := b.fill()
	w.Header().Set("Content-Type", "application/json")
	if err := json.NewEncoder(w).Encode(map[string]any{"bytes": now.bytes, "bound": b.most, "full": now.full}); err != nil {
		klog.V(2).Infof("%s: %v", storePath, err)
	}
}

// refusal has no Retry-After: clients would come again at once, and it takes a person.
func (b *storeBound) refusal(now fill, info *request.RequestInfo) error {
	what := "nothing can be added to it"
	if now.exhausted {
		what = "nothing can be added to it or changed in it"
	}
	return &apierrors.StatusError{ErrStatus: metav1.Status{
		Status: metav1.StatusFailure,
		Code:   http.StatusInsufficientStorage,
		Reason: insufficientStorage,
		Message: fmt.Sprintf("the store of this virtual cluster is full (%s of at most %s), so %s: delete objects, whose room comes back "+
			"within a minute or two, or ask the owner of the VirtualCluster for more storage", inMiB(now.bytes), inMiB(b.most), what),
		Details: &metav1.StatusDetails{Group: info.APIGroup, Kind: info.Resource, Name: info.Name},
	}}
}

// permits is asked of a full store.
func (f fill) permits(g growth, caller string) bool {
	switch isPillar := slices.Contains(pillars, caller); g {
	case growsNothing:
		return true
	case growsLittle:
		return !f.exhausted || isPillar || strings.HasPrefix(caller, controllerPrefix)
	case growsByAnObject:
		return isPillar
	default:
		return false
	}
}

func callerOf(r *http.Request) string {
	if who, ok := request.UserFrom(r.Context()); ok {
		return who.GetName()
	}
	return ""
}

func growthOf(info *request.RequestInfo, r *http.Request) growth {
	isCreate := info.Verb == "create"
	isChange := info.Verb == "update" || info.Verb == "patch"
	switch {
	case !info.IsResourceRequest || !isCreate && !isChange || isDryRun(r):
		return growsNothing
	case info.APIGroup == "authentication.k8s.io" || info.APIGroup == "authorization.k8s.io":
		// Questions, which are answered and not kept.
		return growsNothing
	case info.Resource == "events" && (info.APIGroup == "" || info.APIGroup == "events.k8s.io"):
		return growsByAnEvent
	case slices.Contains(connections, info.Subresource):
		return growsNothing
	case isCreate && (info.Subresource != "" || info.APIGroup == "" && info.Resource == "bindings"):
		// Tokens, bindings, evictions: none of them is an object.
		return growsNothing
	case info.APIGroup == "coordination.k8s.io" && info.Resource == "leases":
		return growthOfLease(isCreate)
	case isCreate || info.Subresource == "" && isApply(r):
		return growsByAnObject
	default:
		return growsLittle
	}
}

// growthOfLease: those who hold one must be able to keep it, or they end. A new one is for somebody who starts, who may use
// the room that is kept for changes, and no more.
func growthOfLease(isCreate bool) growth {
	if isCreate {
		return growsLittle
	}
	return growsNothing
}

// isApply: a patch of this kind makes what is not there.
func isApply(r *http.Request) bool {
	return r.Method == http.MethodPatch && strings.HasPrefix(r.Header.Get("Content-Type"), "application/apply-patch")
}

func isDryRun(r *http.Request) bool {
	return slices.Contains(r.URL.Query()["dryRun"], metav1.DryRunAll)
}
