package main

import (
	"context"
	"io"
	"net"
	"testing"
)

func TestBothPortsGreetAndEndWithTheContext(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	listeners := listenForPolicyProbe(ctx, []int{0, 0})
	if len(listeners) != len(policyProbePorts) {
		t.Fatalf("%d listeners", len(listeners))
	}
	for _, listener := range listeners {
		_, port, err := net.SplitHostPort(listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		for range 2 {
			connection, err := net.Dial("tcp", net.JoinHostPort("127.0.0.1", port))
			if err != nil {
				t.Fatal(err)
			}
			said, err := io.ReadAll(connection)
			if err != nil || string(said) != policyProbeGreeting {
				t.Errorf("%q %v", said, err)
			}
			_ = connection.Close()
		}
	}
	cancel()
	for _, listener := range listeners {
		// AfterFunc runs beside us; closing twice is an error that tells that it has run, or that we were first.
		_ = listener.Close()
		if _, err := net.Dial("tcp", listener.Addr().String()); err == nil {
			t.Error("nobody listens any more")
		}
	}
}
