package main

import (
	"context"
	"fmt"
	"net"
	"time"

	"k8s.io/klog/v2"
)

// Ports by which Portico finds out whether the host enforces NetworkPolicies: that of the control plane lets Portico reach the
// first and nobody the second. Whoever connects is told the greeting and nothing else. Also in src/operator/enforcement.rs.
var policyProbePorts = []int{6441, 6442}

// A proxy that takes every connection says something else, or nothing.
const policyProbeGreeting = "portico\n"

// listenForPolicyProbe serves until the context ends. That it cannot is no reason to run no control plane.
func listenForPolicyProbe(ctx context.Context, ports []int) []net.Listener {
	var listeners []net.Listener
	for _, port := range ports {
		listener, err := net.Listen("tcp", fmt.Sprintf(":%d", port))
		if err != nil {
			klog.ErrorS(err, "whether NetworkPolicies are enforced cannot be probed")
			continue
		}
		context.AfterFunc(ctx, func() { _ = listener.Close() })
		listeners = append(listeners, listener)
		go greet(ctx, listener)
	}
	return listeners
}

// greet has one connection at a time: it never waits for whoever connected.
func greet(ctx context.Context, listener net.Listener) {
	for {
		connection, err := listener.Accept()
		if err != nil {
			if ctx.Err() != nil {
				return
			}
			// Out of file descriptors, for instance.
			time.Sleep(time.Second)
			continue
		}
		_ = connection.SetDeadline(time.Now().Add(time.Second))
		_, _ = connection.Write([]byte(policyProbeGreeting))
		_ = connection.Close()
	}
}
