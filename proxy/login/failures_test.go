package login

import (
	"fmt"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"
)

func net4(a, b byte) netip.Prefix { return netOf(netip.AddrFrom4([4]byte{10, a, b, 7})) }

var testFailures = Failures{Delay: time.Second, MaxDelay: 8 * time.Second, PerName: 5, PerNet: 50, Window: 10 * time.Minute}

func TestFailuresGrow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, net := newFailures(testFailures), net4(1, 1)
		for i, want := range []time.Duration{1, 2, 4, 8, 8} {
			if f.refused("anna", net) {
				t.Fatalf("refused after %d", i)
			}
			if got := f.failed("anna", net); got != want*time.Second {
				t.Errorf("failure %d: %s, want %ds", i+1, got, want)
			}
			time.Sleep(time.Second)
		}
		if !f.refused("anna", net) {
			t.Error("not refused at the limit")
		}
		if f.refused("anna", net4(2, 1)) {
			t.Error("refused from another net: strangers could lock it")
		}
		if f.refused("bert", net) {
			t.Error("another name of the net is refused")
		}
		if got := f.failed("anna", net4(2, 1)); got != 8*time.Second {
			t.Errorf("from another net: %s, want the longest", got)
		}
		time.Sleep(2 * time.Minute) // a fifth of the window: one is forgotten
		if f.refused("anna", net) {
			t.Error("none was forgotten")
		}
		f.failed("anna", net)
		if !f.refused("anna", net) {
			t.Error("more than one was forgotten")
		}
		time.Sleep(10 * time.Minute)
		if got := f.failed("anna", net); got != time.Second {
			t.Errorf("after the window: %s, want the first delay", got)
		}
	})
}

func TestFailuresOfANet(t *testing.T) {
	f, net := newFailures(testFailures), net4(1, 1)
	for i := range testFailures.PerNet {
		f.failed(fmt.Sprint("name", i), net)
	}
	if !f.refused("anna", net) || f.refused("anna", net4(1, 2)) {
		t.Error("want the net refused, and no other")
	}
	v6 := func(s string) netip.Prefix { return netOf(netip.MustParseAddr(s)) }
	if v6("2001:db8::1") != v6("2001:db8::ffff:1") || v6("2001:db8::1") == v6("2001:db8:0:1::1") {
		t.Error("IPv6 counts by /64")
	}
	if netOf(netip.MustParseAddr("::ffff:10.1.1.9")) != net {
		t.Error("a mapped address isn't taken for its own")
	}
}

func TestASuccessForgets(t *testing.T) {
	f, net := newFailures(testFailures), net4(1, 1)
	for range 4 {
		f.failed("anna", net)
	}
	f.succeeded("anna", net)
	if got := f.failed("bert", net); got != 8*time.Second {
		t.Errorf("bert: %s: the net's are not forgotten", got)
	}
	for range 4 {
		if f.refused("anna", net) {
			t.Fatal("anna's are not forgotten")
		}
		f.failed("anna", net)
	}
}

// Nobody lifts a limit by failing with many other names, and memory doesn't grow.
func TestFailuresAreBounded(t *testing.T) {
	f, net := newFailures(testFailures), net4(1, 1)
	for range testFailures.PerName {
		f.failed("anna", net)
	}
	for i := range buckets * ways {
		f.failed(fmt.Sprint("name", i), net4(byte(i>>8), byte(i)))
	}
	if !f.refused("anna", net) {
		t.Error("the limit was lifted")
	}
	if n := testing.AllocsPerRun(100, func() { f.failed("x", net); f.refused("x", net) }); n > 8 {
		t.Errorf("%v allocations", n)
	}
}

func TestNoLimits(t *testing.T) {
	f, net := newFailures(Failures{}), net4(1, 1)
	for range 100 {
		if d := f.failed("anna", net); d != 0 {
			t.Fatalf("delay %s", d)
		}
	}
	if f.refused("anna", net) {
		t.Error("refused without a limit")
	}
}
