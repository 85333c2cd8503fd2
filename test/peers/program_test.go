package peers

import (
	"bytes"
	"errors"
	"net"
	"strings"
	"testing"
)

func TestRunStopsWhatItStarted(t *testing.T) {
	Need(t, "smtp-sink")
	var log bytes.Buffer
	var addr string
	err := Run(t.Context(), "bench", &log, func(p TB) {
		addr = StartSink(p).Addr
		p.Logf("started")
		StartSink(p, "-no-such-flag")
	})
	if err == nil || !strings.HasPrefix(err.Error(), "bench: wait for smtp-sink") {
		t.Errorf("Run: %v, want the failure of the second peer", err)
	}
	if !strings.Contains(log.String(), "started\n") || !strings.Contains(log.String(), "output of smtp-sink") {
		t.Errorf("log %q", log.String())
	}
	if _, err := net.Dial("tcp", addr); err == nil {
		t.Error("the first peer still runs")
	}
}

func TestRunEnds(t *testing.T) {
	var order []string
	ended := Run(t.Context(), "x", &bytes.Buffer{}, func(p TB) {
		p.Cleanup(func() { order = append(order, "first") })
		p.Cleanup(func() { order = append(order, "second"); p.Fatalf("in a cleanup") })
		if p.Failed() || p.Context().Err() != nil {
			t.Error("over before it began")
		}
	})
	if ended == nil || ended.Error() != "x: in a cleanup" || strings.Join(order, " ") != "second first" {
		t.Errorf("Run: %v, cleanups %v", ended, order)
	}
	if err := Run(t.Context(), "x", &bytes.Buffer{}, func(p TB) { p.Skipf("why") }); !errors.Is(err, ErrSkipped) {
		t.Errorf("Run: %v, want ErrSkipped", err)
	}
	if err := Run(t.Context(), "x", &bytes.Buffer{}, func(TB) {}); err != nil {
		t.Errorf("Run: %v", err)
	}
}
