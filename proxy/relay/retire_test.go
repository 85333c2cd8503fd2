package relay

import (
	"testing"

	"mailcutover/internal/platformtest"
	"mailcutover/mail"
	"mailcutover/proxy/dial"
)

// A retired pool lets transactions begin and end, and keeps no connection for later.
func TestRetire(t *testing.T) {
	platform, err := platformtest.Start(platformtest.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer platform.Close()
	pool, err := NewPool(Endpoint{
		Platform: "exchange", Origin: mail.OriginOutside, Protocol: ProtocolSMTP, Hosts: []string{platform.Addr()}, Helo: "mx1.example",
		TLS: dial.TLS{Policy: dial.TLSNone},
	}, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	open := func() *Transaction {
		t.Helper()
		tx, err := pool.Open(t.Context(), mail.Client{}, mail.Path{}, nil)
		if err != nil {
			t.Fatal(err)
		}
		return tx
	}
	idle, used := open(), open()
	idle.Abort()
	if s := pool.Stats(); s.Idle != 1 || s.InUse != 1 {
		t.Fatalf("before: %+v", s)
	}
	pool.Retire()
	if s := pool.Stats(); s.Open != 1 || s.InUse != 1 {
		t.Errorf("retired: %+v", s)
	}
	late := open()
	used.Abort()
	late.Abort()
	if s := pool.Stats(); s.Open != 0 {
		t.Errorf("nothing is under way: %+v", s)
	}
}
