package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"
)

// network is a node and three pods on its bridge, each a network namespace of its own that ends with the test.
type network struct {
	t    *testing.T
	node string
}

func newNetwork(t *testing.T) network {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root: it makes network namespaces")
	}
	for _, program := range []string{"ip", "iptables", "iptables-restore", "iptables-save"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("needs %s", program)
		}
	}
	n := network{t: t, node: fmt.Sprintf("np%d", os.Getpid())}
	n.namespace(n.node)
	n.ip("link", "add", "br0", "type", "bridge")
	n.ip("addr", "add", "10.0.0.254/24", "dev", "br0")
	n.ip("link", "set", "br0", "up")
	n.ip("link", "set", "lo", "up")
	// As on the cluster's node; without it pods on one bridge meet no rule.
	setting := "/proc/sys/net/bridge/bridge-nf-call-iptables"
	if _, err := os.Stat(setting); err != nil {
		t.Skip("needs br_netfilter")
	}
	n.run("ip", "netns", "exec", n.node, "sh", "-c", "echo 1 >"+setting)
	for i := 1; i <= 3; i++ {
		name := n.pod(i)
		n.namespace(name)
		port := fmt.Sprintf("p%d", i)
		n.ip("link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", name)
		n.ip("link", "set", port, "master", "br0")
		n.ip("link", "set", port, "up")
		n.run("ip", "-n", name, "addr", "add", n.address(i)+"/24", "dev", "eth0")
		n.run("ip", "-n", name, "link", "set", "eth0", "up")
		n.run("ip", "-n", name, "link", "set", "lo", "up")
	}
	return n
}

func (n network) pod(i int) string     { return fmt.Sprintf("%s-%d", n.node, i) }
func (n network) address(i int) string { return fmt.Sprintf("10.0.0.%d", i) }

func (n network) namespace(name string) {
	n.run("ip", "netns", "add", name)
	n.t.Cleanup(func() { _ = exec.Command("ip", "netns", "del", name).Run() })
}

func (n network) ip(arguments ...string) {
	n.run("ip", append([]string{"-n", n.node}, arguments...)...)
}

func (n network) run(name string, arguments ...string) {
	n.t.Helper()
	if out, err := exec.Command(name, arguments...).CombinedOutput(); err != nil {
		n.t.Fatalf("%s %s: %v: %s", name, strings.Join(arguments, " "), err, out)
	}
}

// inside runs on a thread of that namespace, which ends with it: a thread that left its own must not serve others.
func (n network) inside(name string, work func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		file, err := os.Open("/run/netns/" + name)
		if err == nil {
			err = unix.Setns(int(file.Fd()), unix.CLONE_NEWNET)
			_ = file.Close()
		}
		if err == nil {
			err = work()
		}
		done <- err
	}()
	return <-done
}

func (n network) listen(name, address string) {
	n.t.Helper()
	err := n.inside(name, func() error {
		listener, err := net.Listen("tcp", address)
		if err != nil {
			return err
		}
		n.t.Cleanup(func() { _ = listener.Close() })
		go func() {
			for {
				connection, err := listener.Accept()
				if err != nil {
					return
				}
				_ = connection.Close()
			}
		}()
		return nil
	})
	if err != nil {
		n.t.Fatal(err)
	}
}

func (n network) dial(name, address string) error {
	return n.inside(name, func() error {
		connection, err := net.DialTimeout("tcp", address, 2*time.Second)
		if err == nil {
			err = connection.Close()
		}
		return err
	})
}

// What a policy refuses is dropped by a real kernel, and what it lets pass arrives.
func TestKernelDropsWhatIsRefused(t *testing.T) {
	n := newNetwork(t)
	for i := 1; i <= 3; i++ {
		for _, port := range []string{"80", "81"} {
			n.listen(n.pod(i), n.address(i)+":"+port)
		}
	}
	n.listen(n.node, "10.0.0.254:6443")
	for i := 1; i <= 3; i++ {
		if err := n.dial(n.pod(i), "10.0.0.254:6443"); err != nil {
			t.Fatalf("before, everything is open: %v", err)
		}
	}
	s := world(policy(t, "a", `{podSelector: {}, policyTypes: [Ingress, Egress],
		ingress: [{from: [{podSelector: {}}], ports: [{port: 80}]}],
		egress: [{to: [{podSelector: {}}, {ipBlock: {cidr: 0.0.0.0/0, except: [10.0.0.254/32]}}]}]}`))
	all, err := render(s)
	if err != nil {
		t.Fatal(err)
	}
	kernel := firewall{prefix: []string{"ip", "netns", "exec", n.node}}
	ctx := context.Background()
	for range 2 {
		if err := kernel.apply(ctx, all); err != nil {
			t.Fatal(err)
		}
	}
	check := func(from, to string, want bool) {
		t.Helper()
		if err := n.dial(from, to); (err == nil) != want {
			t.Errorf("%s to %s: %v", from, to, err)
		}
	}
	check(n.pod(1), "10.0.0.2:80", true)
	check(n.pod(1), "10.0.0.2:81", false)
	check(n.pod(3), "10.0.0.1:80", false)
	check(n.pod(1), "10.0.0.3:81", true)
	check(n.pod(1), "10.0.0.254:6443", false)
	check(n.pod(3), "10.0.0.254:6443", true)
	check(n.node, "10.0.0.1:81", true)
	s.policies = nil
	if all, err = render(s); err != nil {
		t.Fatal(err)
	}
	if err := kernel.apply(ctx, all); err != nil {
		t.Fatal(err)
	}
	check(n.pod(3), "10.0.0.1:81", true)
	chains, err := kernel.chains(ctx)
	if err != nil || len(chains) != 1 {
		t.Errorf("the chains of policies that are gone: %q %v", chains, err)
	}
}

// Policies that come, change and go, and pods that come late, reach the kernel.
func TestKernelFollows(t *testing.T) {
	n := newNetwork(t)
	for i := 1; i <= 3; i++ {
		n.listen(n.pod(i), n.address(i)+":80")
	}
	ctx, cancel := context.WithCancel(context.Background())
	client := fake.NewClientset()
	ended := make(chan error)
	kernel := func() *firewall { return &firewall{prefix: []string{"ip", "netns", "exec", n.node}} }
	go func() { ended <- watch(ctx, client, kernel()) }()
	// Before its network goes.
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	// This API server forgets what happens between a list and its watch.
	for begun := time.Now(); ; time.Sleep(50 * time.Millisecond) {
		if chains, err := kernel().chains(ctx); err == nil && len(chains) > 0 {
			break
		}
		if time.Since(begun) > 20*time.Second {
			t.Fatal("no rules at all")
		}
	}
	must := func(_ any, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	var created metav1.CreateOptions
	namespace := &v1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "a", Labels: map[string]string{"kubernetes.io/metadata.name": "a"}}}
	must(client.CoreV1().Namespaces().Create(ctx, namespace, created))
	add := func(i int, app string) {
		p := &v1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "a", Name: fmt.Sprint("p", i), Labels: map[string]string{"app": app}}}
		p.Status = v1.PodStatus{PodIP: n.address(i), Phase: v1.PodRunning}
		must(client.CoreV1().Pods("a").Create(ctx, p, created))
	}
	eventually := func(from, to int, want bool) {
		t.Helper()
		var err error
		for range 50 {
			if err = n.dial(n.pod(from), n.address(to)+":80"); (err == nil) == want {
				return
			}
			time.Sleep(100 * time.Millisecond)
		}
		t.Errorf("%d to %d: %v", from, to, err)
	}
	add(1, "one")
	closed := policy(t, "a", `{podSelector: {matchLabels: {app: one}}, ingress: [{from: [{podSelector: {matchLabels: {app: two}}}]}]}`)
	must(client.NetworkingV1().NetworkPolicies("a").Create(ctx, closed, created))
	eventually(3, 1, false)
	eventually(2, 1, false)
	add(2, "two")
	eventually(2, 1, true)
	eventually(3, 1, false)
	if err := client.NetworkingV1().NetworkPolicies("a").Delete(ctx, closed.Name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(3, 1, true)
}
