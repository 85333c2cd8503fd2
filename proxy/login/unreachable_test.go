package login

import (
	"context"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"mailcutover/proxy/dial"
)

// dials has the exchange dialled by dial, which is told how often it was called before.
func (w *world) dials(backoff time.Duration, call func(n int) error) *atomic.Int64 {
	w.t.Helper()
	ep, n := w.proxy.endpoint("exchange", "toy"), new(atomic.Int64)
	way := ep.Way
	way.Backoff = dial.Backoff{First: backoff, Max: backoff}
	var err error
	ep.dialer, err = dial.New(way, dial.Options{Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
		if err := call(int(n.Add(1)) - 1); err != nil {
			return nil, err
		}
		return new(net.Dialer).DialContext(ctx, network, address)
	}})
	if err != nil {
		w.t.Fatal(err)
	}
	return n
}

var errDown = errors.New("down")

// A platform that is away for a moment costs its users that moment.
func TestUnreachableForAMoment(t *testing.T) {
	w := newWorld(t, nil)
	n := w.dials(20*time.Millisecond, func(n int) error {
		if n < 3 {
			return errDown
		}
		return nil
	})
	w.logIn("anna")
	if n.Load() != 4 {
		t.Errorf("dialled %d times", n.Load())
	}
}

// Many wait for the one that tries, and all go on when it is through.
func TestOneTriesForAll(t *testing.T) {
	w := newWorld(t, nil)
	proceed := make(chan struct{})
	var blocked atomic.Int64
	n := w.dials(50*time.Millisecond, func(n int) error {
		switch n {
		case 0:
			return errDown
		case 1:
			blocked.Add(1)
			<-proceed
		}
		return nil
	})
	const many = 20
	var all sync.WaitGroup
	logIn := func() {
		p := w.dial()
		all.Go(func() {
			p.send("LOGIN anna s3cret")
			p.want("yes")
		})
	}
	logIn()
	w.until("the platform is found to be away", func() bool { return !w.proxy.endpoint("exchange", "toy").dialer.Stats()[0].Healthy })
	for range many - 1 {
		logIn()
	}
	w.until("one tries and the others wait", func() bool { return blocked.Load() == 1 && w.proxy.Counts().Waiting == many-1 })
	if n.Load() != 2 {
		t.Errorf("dialled %d times while one tries", n.Load())
	}
	close(proceed)
	all.Wait()
}

// A session that an operator ended while its platform was dialled doesn't wait.
func TestEndedWhileDialled(t *testing.T) {
	w := newWorld(t, nil)
	n := w.dials(20*time.Millisecond, func(int) error {
		w.proxy.CloseSessions(Filter{}, "")
		return errDown
	})
	p := w.dial()
	p.send("LOGIN anna s3cret")
	p.want("no operator")
	if n.Load() != 1 {
		t.Errorf("dialled %d times", n.Load())
	}
}

// If nobody will try within the wait, nobody waits.
func TestUnreachableForLong(t *testing.T) {
	w := newWorld(t, func(o *Options, _ *Listener, _ []Endpoint) { o.Wait = 2 * patience }) // who waited would be too late
	n := w.dials(time.Hour, func(int) error { return errDown })
	for range 3 {
		p := w.dial()
		p.send("LOGIN anna s3cret")
		p.want("no platform")
	}
	if n.Load() != 1 {
		t.Errorf("dialled %d times", n.Load())
	}
}

// An agency that closes meanwhile is waited for as any other.
func TestClosedWhileUnreachable(t *testing.T) {
	w := newWorld(t, nil)
	n := w.dials(time.Hour, func(int) error { return errDown })
	w.proxy.o.Wait = 2 * time.Hour
	p := w.dial()
	p.send("LOGIN anna s3cret")
	w.until("it waits", func() bool { return n.Load() == 1 && w.proxy.Counts().Waiting == 1 })
	w.begin()
	w.publish()
	p.want("yes")
	p.send("ping")
	p.want("ox: ping")
}

// Somebody who leaves while he waits for a host gives his place free.
func TestLeavesWhileUnreachable(t *testing.T) {
	w := newWorld(t, nil)
	w.dials(time.Hour, func(int) error { return errDown })
	w.proxy.o.Wait = 2 * time.Hour
	p := w.dial()
	p.send("LOGIN anna s3cret")
	w.until("it waits", func() bool { return w.proxy.Counts().Waiting == 1 })
	_ = p.nc.Close()
	w.until("it has left", func() bool { return w.proxy.Counts().Waiting == 0 })
}
