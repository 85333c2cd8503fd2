package transfer

import (
	"testing"

	"mailcutover/mail"
	"mailcutover/proxy/dial"
	"mailcutover/proxy/relay"
	"mailcutover/routing"
)

// The gate may cut a leg a moment after its end: the next message of the session must not
// be the one that is cut.
func TestCutAfterTheEnd(t *testing.T) {
	pool, err := relay.NewPool(relay.Endpoint{
		Platform: "ox", Origin: mail.OriginOutside, Protocol: relay.ProtocolLMTP, Hosts: []string{"127.0.0.1:1"}, Helo: "mx1.example",
		TLS: dial.TLS{Policy: dial.TLSNone},
	}, relay.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	var c cutter
	defer c.end()
	next := func() *leg { return c.leg(t.Context(), &relay.Platform{}, pool, &routing.Decision{}) }
	first := next()
	first.end()
	second := next()
	first.cut()
	if second.ctx.Err() != nil {
		t.Error("the next leg was cut")
	}
	second.cut()
	if second.ctx.Err() == nil {
		t.Error("the leg was not cut")
	}
	second.end()
	if third := next(); third.ctx.Err() != nil {
		t.Error("a leg after one that was cut is cut, too")
	}
}
