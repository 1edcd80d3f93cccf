package main

import (
	"cmp"
	"crypto/sha256"
	"fmt"
	"net/netip"
	"slices"
	"sort"
	"strings"

	v1 "k8s.io/api/core/v1"
	networking "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// mainChain is where the kernel's own chains lead to; all others of ours begin with its name.
const mainChain = "PORTICO-NP"

// state is what rules are made of.
type state struct {
	// Labels by name.
	namespaces map[string]labels.Set
	pods       []pod
	policies   []*networking.NetworkPolicy
}

// pod has an address of its own: those on their node's network are their node.
type pod struct {
	namespace, name string
	address         netip.Addr
	labels          labels.Set
	// Numbers by protocol and name, as portKey says them.
	ports map[string]int32
}

// rules are the arguments of "-A CHAIN", by chain.
type rules map[string][]string

// render translates policies for pods with IPv4 addresses. Order of events does not matter: the same state gives the
// same text. A pod's chain returns what it lets pass, so that the other end is asked as well, and drops the rest.
func render(s state) (rules, error) {
	all := rules{mainChain: {"-m conntrack --ctstate RELATED,ESTABLISHED -j RETURN"}}
	pods := slices.Clone(s.pods)
	sort.Slice(pods, func(i, j int) bool { return pods[i].address.Less(pods[j].address) })
	var out, in []string
	for _, p := range pods {
		for _, direction := range []networking.PolicyType{networking.PolicyTypeEgress, networking.PolicyTypeIngress} {
			allowed, isolated, err := s.allowed(p, direction)
			if err != nil {
				return nil, err
			}
			if !isolated {
				continue
			}
			body := append(allowed, "-j DROP")
			chain := chainOf(body)
			all[chain] = body
			if direction == networking.PolicyTypeEgress {
				// What a pod says to itself, by way of a Service, is nobody's business.
				out = append(out, fmt.Sprintf("-s %[1]s/32 -d %[1]s/32 -j RETURN", p.address))
				out = append(out, fmt.Sprintf("-s %s/32 -j %s", p.address, chain))
			} else {
				in = append(in, fmt.Sprintf("-s %[1]s/32 -d %[1]s/32 -j RETURN", p.address))
				in = append(in, fmt.Sprintf("-d %s/32 -j %s", p.address, chain))
			}
		}
	}
	all[mainChain] = append(all[mainChain], append(out, in...)...)
	return all, nil
}

// chainOf names a chain by what is in it: pods under the same policies share one.
func chainOf(body []string) string {
	return fmt.Sprintf("%s-%.8x", mainChain, sha256.Sum256([]byte(strings.Join(body, "\n"))))
}

// allowed is what policies let a pod do in one direction, and whether any of them selects it at all.
func (s state) allowed(p pod, direction networking.PolicyType) ([]string, bool, error) {
	var matches []string
	isolated := false
	for _, policy := range s.policies {
		if policy.Namespace != p.namespace || !has(policy, direction) {
			continue
		}
		selector, err := metav1.LabelSelectorAsSelector(&policy.Spec.PodSelector)
		if err != nil {
			return nil, false, fmt.Errorf("%s/%s: %w", policy.Namespace, policy.Name, err)
		}
		if !selector.Matches(p.labels) {
			continue
		}
		isolated = true
		if direction == networking.PolicyTypeIngress {
			for _, rule := range policy.Spec.Ingress {
				ends, err := s.ends(policy.Namespace, rule.From)
				if err != nil {
					return nil, false, err
				}
				matches = append(matches, matching("-s", ends, rule.Ports, &p)...)
			}
			continue
		}
		for _, rule := range policy.Spec.Egress {
			ends, err := s.ends(policy.Namespace, rule.To)
			if err != nil {
				return nil, false, err
			}
			matches = append(matches, matching("-d", ends, rule.Ports, nil)...)
		}
	}
	slices.Sort(matches)
	return slices.Compact(matches), isolated, nil
}

// has tells whether a policy speaks of a direction. Without types, egress is meant when there is a rule for it.
func has(policy *networking.NetworkPolicy, direction networking.PolicyType) bool {
	if types := policy.Spec.PolicyTypes; len(types) > 0 {
		return slices.Contains(types, direction)
	}
	return direction == networking.PolicyTypeIngress || len(policy.Spec.Egress) > 0
}

// end is the other end of a connection: a network, and the pod when it is one.
type end struct {
	network netip.Prefix
	pod     *pod
}

// ends are those that peers name. No peers at all is everybody.
func (s state) ends(namespace string, peers []networking.NetworkPolicyPeer) ([]end, error) {
	if len(peers) == 0 {
		return []end{{network: everything}}, nil
	}
	var all []end
	for _, peer := range peers {
		if peer.IPBlock != nil {
			networks, err := blockOf(peer.IPBlock)
			if err != nil {
				return nil, err
			}
			for _, network := range networks {
				all = append(all, end{network: network})
			}
			continue
		}
		ofPods, err := selectorOf(peer.PodSelector)
		if err != nil {
			return nil, err
		}
		ofNamespaces, err := selectorOf(peer.NamespaceSelector)
		if err != nil {
			return nil, err
		}
		for i := range s.pods {
			p := &s.pods[i]
			if peer.NamespaceSelector == nil && p.namespace != namespace {
				continue
			}
			if ofNamespaces.Matches(s.namespaces[p.namespace]) && ofPods.Matches(p.labels) {
				all = append(all, end{network: netip.PrefixFrom(p.address, p.address.BitLen()), pod: p})
			}
		}
	}
	return all, nil
}

// selectorOf is everything where nothing is said.
func selectorOf(selector *metav1.LabelSelector) (labels.Selector, error) {
	if selector == nil {
		return labels.Everything(), nil
	}
	return metav1.LabelSelectorAsSelector(selector)
}

var everything = netip.MustParsePrefix("0.0.0.0/0")

// blockOf is a block without its exceptions, as networks; none for another family.
func blockOf(block *networking.IPBlock) ([]netip.Prefix, error) {
	network, err := netip.ParsePrefix(block.CIDR)
	if err != nil {
		return nil, err
	}
	if !network.Addr().Is4() {
		return nil, nil
	}
	var except []netip.Prefix
	for _, text := range block.Except {
		part, err := netip.ParsePrefix(text)
		if err != nil {
			return nil, err
		}
		except = append(except, part.Masked())
	}
	return without(network.Masked(), except), nil
}

// without halves a network until each part is wholly in or out.
func without(network netip.Prefix, except []netip.Prefix) []netip.Prefix {
	touched := false
	for _, part := range except {
		if part.Bits() <= network.Bits() && part.Contains(network.Addr()) {
			return nil
		}
		touched = touched || part.Overlaps(network)
	}
	if !touched {
		return []netip.Prefix{network}
	}
	bits := network.Bits() + 1
	upper := network.Addr().As4()
	upper[(bits-1)/8] |= 1 << (7 - (bits-1)%8)
	return append(without(netip.PrefixFrom(network.Addr(), bits), except),
		without(netip.PrefixFrom(netip.AddrFrom4(upper), bits), except)...)
}

// matching is one rule for each end and port. Named ports are those of the pod that is connected to: `target`, or the end.
func matching(flag string, ends []end, ports []networking.NetworkPolicyPort, target *pod) []string {
	var all []string
	for _, e := range ends {
		match := ""
		if e.network != everything {
			match = fmt.Sprintf("%s %s ", flag, e.network)
		}
		if len(ports) == 0 {
			all = append(all, match+"-j RETURN")
			continue
		}
		owner := target
		if owner == nil {
			owner = e.pod
		}
		for _, port := range ports {
			if of, known := portOf(port, owner); known {
				all = append(all, match+of+"-j RETURN")
			}
		}
	}
	return all
}

// portOf is a port as iptables says it; false for a name that the pod does not have.
func portOf(port networking.NetworkPolicyPort, owner *pod) (string, bool) {
	var protocol v1.Protocol
	if port.Protocol != nil {
		protocol = *port.Protocol
	}
	protocol = cmp.Or(protocol, v1.ProtocolTCP)
	kind := strings.ToLower(string(protocol))
	if port.Port == nil {
		return fmt.Sprintf("-p %s ", kind), true
	}
	first := port.Port.IntVal
	if port.Port.Type == intstr.String {
		if owner == nil {
			return "", false
		}
		number, known := owner.ports[portKey(protocol, port.Port.StrVal)]
		if !known {
			return "", false
		}
		first = number
	}
	if port.EndPort != nil {
		return fmt.Sprintf("-p %s --dport %d:%d ", kind, first, *port.EndPort), true
	}
	return fmt.Sprintf("-p %s --dport %d ", kind, first), true
}

// podOf is what rules need of a pod; false for one without an address of its own, or that has ended.
func podOf(p *v1.Pod) (pod, bool) {
	address, err := netip.ParseAddr(p.Status.PodIP)
	ended := p.Status.Phase == v1.PodSucceeded || p.Status.Phase == v1.PodFailed
	if err != nil || !address.Is4() || p.Spec.HostNetwork || ended {
		return pod{}, false
	}
	return pod{namespace: p.Namespace, name: p.Name, address: address, labels: p.Labels, ports: portsOf(p)}, true
}

// portsOf are the numbers behind the names of a pod's ports, found as kube-proxy's endpoints are: the first container that
// has a name counts, and init containers that go on running come after the others.
func portsOf(p *v1.Pod) map[string]int32 {
	containers := slices.Clone(p.Spec.Containers)
	for _, container := range p.Spec.InitContainers {
		if container.RestartPolicy != nil && *container.RestartPolicy == v1.ContainerRestartPolicyAlways {
			containers = append(containers, container)
		}
	}
	ports := map[string]int32{}
	for _, container := range containers {
		for _, port := range container.Ports {
			key := portKey(port.Protocol, port.Name)
			if _, known := ports[key]; port.Name != "" && !known {
				ports[key] = port.ContainerPort
			}
		}
	}
	return ports
}

// portKey is a port's protocol and name. Without a protocol it is TCP.
func portKey(protocol v1.Protocol, name string) string {
	return string(cmp.Or(protocol, v1.ProtocolTCP)) + "/" + name
}
