package main

import (
	"fmt"
	"net/netip"
	"reflect"
	"strings"
	"testing"

	v1 "k8s.io/api/core/v1"
	networking "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/yaml"
)

func policy(t *testing.T, namespace, spec string) *networking.NetworkPolicy {
	t.Helper()
	p := &networking.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "p"}}
	if err := yaml.UnmarshalStrict([]byte(spec), &p.Spec); err != nil {
		t.Fatal(err)
	}
	return p
}

// world is three pods: two of namespace a, one of b.
func world(policies ...*networking.NetworkPolicy) state {
	of := func(namespace, name, address string) pod {
		return pod{namespace: namespace, name: name, address: netip.MustParseAddr(address),
			labels: labels.Set{"app": name}, ports: map[string]int32{"TCP/web": 8080}}
	}
	names := map[string]labels.Set{}
	for _, name := range []string{"a", "b"} {
		names[name] = labels.Set{"kubernetes.io/metadata.name": name}
	}
	pods := []pod{of("a", "one", "10.0.0.1"), of("a", "two", "10.0.0.2"), of("b", "three", "10.0.0.3")}
	return state{namespaces: names, pods: pods, policies: policies}
}

// chain is what is asked about a pod in one direction; nil when nothing is.
func chain(t *testing.T, all rules, flag, address string) []string {
	t.Helper()
	for _, rule := range all[mainChain] {
		var to string
		if n, _ := fmt.Sscanf(rule, flag+" "+address+"/32 -j %s", &to); n == 1 && to != "RETURN" {
			return all[to]
		}
	}
	return nil
}

func TestPoliciesBecomeRules(t *testing.T) {
	for name, c := range map[string]struct {
		namespace, spec, flag, address string
		want                           []string
	}{
		"nobody is selected": {"a", `{podSelector: {matchLabels: {app: none}}}`, "-d", "10.0.0.1", nil},
		"another namespace":  {"b", `{podSelector: {}}`, "-d", "10.0.0.1", nil},
		"closed":             {"a", `{podSelector: {}}`, "-d", "10.0.0.1", []string{"-j DROP"}},
		"without types egress is open": {"a", `{podSelector: {}}`, "-s", "10.0.0.1",
			nil},
		"egress": {"a", `{podSelector: {}, policyTypes: [Egress], egress: [{to: [{podSelector: {matchLabels: {app: two}}}]}]}`, "-s", "10.0.0.1",
			[]string{"-d 10.0.0.2/32 -j RETURN", "-j DROP"}},
		"everybody": {"a", `{podSelector: {}, ingress: [{}]}`, "-d", "10.0.0.2",
			[]string{"-j RETURN", "-j DROP"}},
		"pods of its namespace": {"a", `{podSelector: {matchLabels: {app: one}}, ingress: [{from: [{podSelector: {}}]}]}`, "-d", "10.0.0.1",
			[]string{"-s 10.0.0.1/32 -j RETURN", "-s 10.0.0.2/32 -j RETURN", "-j DROP"}},
		"pods of another": {"a", `{podSelector: {}, ingress: [{from: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: b}}, podSelector: {matchExpressions: [{key: app, operator: Exists}]}}]}]}`, "-d", "10.0.0.1",
			[]string{"-s 10.0.0.3/32 -j RETURN", "-j DROP"}},
		"a block and its exception": {"a", `{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 192.0.2.0/24, except: [192.0.2.128/26]}}]}]}`, "-d", "10.0.0.1",
			[]string{"-s 192.0.2.0/25 -j RETURN", "-s 192.0.2.192/26 -j RETURN", "-j DROP"}},
		"another family": {"a", `{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: '::/0'}}]}]}`, "-d", "10.0.0.1",
			[]string{"-j DROP"}},
		"ports": {"a", `{podSelector: {}, ingress: [{ports: [{port: 80}, {port: 20000, endPort: 23999, protocol: UDP}, {protocol: SCTP}, {port: web}, {port: unknown}]}]}`, "-d", "10.0.0.1",
			[]string{"-p sctp -j RETURN", "-p tcp --dport 80 -j RETURN", "-p tcp --dport 8080 -j RETURN", "-p udp --dport 20000:23999 -j RETURN", "-j DROP"}},
		"a named port of the other end": {"a", `{podSelector: {}, policyTypes: [Egress], egress: [{to: [{namespaceSelector: {}, podSelector: {matchLabels: {app: three}}}, {ipBlock: {cidr: 192.0.2.0/24}}], ports: [{port: web}]}]}`, "-s", "10.0.0.1",
			[]string{"-d 10.0.0.3/32 -p tcp --dport 8080 -j RETURN", "-j DROP"}},
	} {
		all, err := render(world(policy(t, c.namespace, c.spec)))
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if got := chain(t, all, c.flag, c.address); !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s:\n got %q\nwant %q", name, got, c.want)
		}
	}
}

func TestPoliciesAddUpAndPodsShareChains(t *testing.T) {
	s := world(
		policy(t, "a", `{podSelector: {}, ingress: [{from: [{podSelector: {matchLabels: {app: two}}}]}]}`),
		policy(t, "a", `{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 0.0.0.0/0, except: [10.0.0.0/8]}}], ports: [{port: 80}]}]}`),
	)
	all, err := render(s)
	if err != nil {
		t.Fatal(err)
	}
	if len(all) != 2 {
		t.Errorf("one chain for both pods of the namespace, not %d", len(all)-1)
	}
	got := chain(t, all, "-d", "10.0.0.1")
	if len(got) != 8+2 {
		t.Errorf("eight networks are all but 10.0.0.0/8: %q", got)
	}
	first := all[mainChain][0]
	if !strings.Contains(first, "ESTABLISHED") {
		t.Errorf("answers pass before anything is asked: %q", first)
	}
	again, err := render(s)
	if err != nil || again.text() != all.text() {
		t.Errorf("the same state gives the same text")
	}
}

func TestExceptionsAreTakenOut(t *testing.T) {
	of := netip.MustParsePrefix
	closed := []netip.Prefix{of("10.88.0.0/16"), of("169.254.0.0/16"), of("192.0.2.10/32")}
	parts := without(everything, closed)
	contains := func(text string) bool {
		for _, part := range parts {
			if part.Contains(netip.MustParseAddr(text)) {
				return true
			}
		}
		return false
	}
	for text, want := range map[string]bool{
		"10.88.0.1": false, "10.88.255.255": false, "169.254.169.254": false, "192.0.2.10": false,
		"10.87.255.255": true, "10.89.0.0": true, "192.0.2.11": true, "192.0.2.9": true, "0.0.0.0": true, "255.255.255.255": true,
	} {
		if contains(text) != want {
			t.Errorf("%s: %v", text, !want)
		}
	}
	if left := without(of("10.88.1.0/24"), closed); left != nil {
		t.Errorf("nothing is left of it: %v", left)
	}
}

func TestPodsThatDoNotCount(t *testing.T) {
	own := func(change func(*v1.Pod)) *v1.Pod {
		p := &v1.Pod{Status: v1.PodStatus{PodIP: "10.0.0.1", Phase: v1.PodRunning}}
		change(p)
		return p
	}
	for name, c := range map[string]struct {
		change func(*v1.Pod)
		counts bool
	}{
		"running":        {func(*v1.Pod) {}, true},
		"no address yet": {func(p *v1.Pod) { p.Status.PodIP = "" }, false},
		"its node's":     {func(p *v1.Pod) { p.Spec.HostNetwork = true }, false},
		"ended":          {func(p *v1.Pod) { p.Status.Phase = v1.PodSucceeded }, false},
		"another family": {func(p *v1.Pod) { p.Status.PodIP = "fd00::1" }, false},
	} {
		if _, counts := podOf(own(c.change)); counts != c.counts {
			t.Errorf("%s: %v", name, counts)
		}
	}
}

func TestWhatIsNoLongerNeededGoes(t *testing.T) {
	all := rules{mainChain: {"-j RETURN"}}
	got := all.replacing([]string{mainChain, mainChain + "-old"})
	want := "*mangle\n:PORTICO-NP - [0:0]\n:PORTICO-NP-old - [0:0]\n-A PORTICO-NP -j RETURN\n-X PORTICO-NP-old\nCOMMIT\n"
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestPortsWithoutAnOwner(t *testing.T) {
	name := intstr.FromString("web")
	if _, known := portOf(networking.NetworkPolicyPort{Port: &name}, nil); known {
		t.Error("a network has no named ports")
	}
}

func TestPortsByName(t *testing.T) {
	port := func(protocol v1.Protocol, name string, number int32) v1.ContainerPort {
		return v1.ContainerPort{Protocol: protocol, Name: name, ContainerPort: number}
	}
	always := v1.ContainerRestartPolicyAlways
	p := &v1.Pod{Status: v1.PodStatus{PodIP: "10.0.0.1"}, Spec: v1.PodSpec{
		InitContainers: []v1.Container{
			{Ports: []v1.ContainerPort{port("TCP", "setup", 1)}},
			{RestartPolicy: &always, Ports: []v1.ContainerPort{port("TCP", "web", 2), port("TCP", "beside", 3)}},
		},
		Containers: []v1.Container{
			{Ports: []v1.ContainerPort{port("", "web", 8080), port("UDP", "web", 8081), port("TCP", "", 9)}},
			{Ports: []v1.ContainerPort{port("TCP", "web", 8082), port("SCTP", "more", 8083)}},
		},
	}}
	own, counts := podOf(p)
	want := map[string]int32{"TCP/web": 8080, "UDP/web": 8081, "SCTP/more": 8083, "TCP/beside": 3}
	if !counts || !reflect.DeepEqual(own.ports, want) {
		t.Errorf("got %v, want %v", own.ports, want)
	}
	name, empty := intstr.FromString("web"), v1.Protocol("")
	for protocol, rule := range map[*v1.Protocol]string{nil: "-p tcp --dport 8080 ", &empty: "-p tcp --dport 8080 "} {
		if got, known := portOf(networking.NetworkPolicyPort{Protocol: protocol, Port: &name}, &own); !known || got != rule {
			t.Errorf("got %q, want %q", got, rule)
		}
	}
}

func TestANamedPortOpensOnlyThatOfEachPod(t *testing.T) {
	s := world(policy(t, "a", `{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 192.0.2.0/24}}], ports: [{port: web, protocol: TCP}]}]}`))
	s.pods[1].ports = map[string]int32{"TCP/web": 3000, "UDP/web": 3001}
	s.pods = append(s.pods, pod{namespace: "a", name: "four", address: netip.MustParseAddr("10.0.0.4"), labels: labels.Set{}})
	all, err := render(s)
	if err != nil {
		t.Fatal(err)
	}
	for address, want := range map[string][]string{
		"10.0.0.1": {"-s 192.0.2.0/24 -p tcp --dport 8080 -j RETURN", "-j DROP"},
		"10.0.0.2": {"-s 192.0.2.0/24 -p tcp --dport 3000 -j RETURN", "-j DROP"},
		"10.0.0.4": {"-j DROP"},
	} {
		if got := chain(t, all, "-d", address); !reflect.DeepEqual(got, want) {
			t.Errorf("%s: got %q, want %q", address, got, want)
		}
	}
}
