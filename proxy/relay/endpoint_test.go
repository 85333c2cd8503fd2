package relay

import (
	"crypto/x509"
	"strings"
	"testing"
	"time"

	"mailcutover/mail"
	"mailcutover/proxy/dial"
)

func TestValidate(t *testing.T) {
	good := endpoint("127.0.0.1:25", "mail.example:25", "[::1]:24")
	if err := good.Validate(); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		break_ func(*Endpoint)
		want   string
	}{
		"zero":                {func(e *Endpoint) { *e = Endpoint{} }, "platform"},
		"origin":              {func(e *Endpoint) { e.Origin = mail.OriginUnknown }, "origin unknown"},
		"protocol":            {func(e *Endpoint) { e.Protocol = 7 }, "protocol unknown"},
		"no hosts":            {func(e *Endpoint) { e.Hosts = nil }, "hosts []"},
		"host without port":   {func(e *Endpoint) { e.Hosts = []string{"mail.example"} }, `hosts "mail.example"`},
		"host twice":          {func(e *Endpoint) { e.Hosts = []string{"a:1", "a:1"} }, "twice"},
		"helo":                {func(e *Endpoint) { e.Helo = "a b" }, `helo "a b"`},
		"helo with a command": {func(e *Endpoint) { e.Helo = "a\r\nRSET" }, "helo"},
		"no TLS policy":       {func(e *Endpoint) { e.TLS.Policy = dial.TLSUnknown }, "tls policy unknown"},
		"implicit":            {func(e *Endpoint) { e.TLS = dial.TLS{Policy: dial.TLSOpportunistic, Implicit: true} }, "implicit"},
		"CA without policy":   {func(e *Endpoint) { e.TLS.CA = x509.NewCertPool() }, "want verified"},
		"auth incomplete":     {func(e *Endpoint) { e.Auth = &Auth{Mechanism: "NTLM"} }, "auth mechanism"},
		"identity":            {func(e *Endpoint) { e.Identity = 9 }, "identity"},
		"connections":         {func(e *Endpoint) { e.Limits.Connections = -1 }, "connections -1"},
		"messages":            {func(e *Endpoint) { e.Limits.MaxMessages = -1 }, "max-messages"},
		"age beyond limit":    {func(e *Endpoint) { e.Limits = Limits{MaxAge: time.Minute, PlatformLimit: time.Minute} }, "less than platform-limit, 1m0s"},
		"back-off":            {func(e *Endpoint) { e.Limits = Limits{Backoff: time.Minute, BackoffMax: time.Second} }, "backoff-max"},
		"negative limit":      {func(e *Endpoint) { e.Limits.QueueWait = -1 }, "queue-wait"},
		"negative timeout":    {func(e *Endpoint) { e.Timeouts.Dot = -1 }, "timeout dot"},
	} {
		ep := good
		c.break_(&ep)
		if err := ep.Validate(); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q", name, err, c.want)
		}
		if _, err := NewPool(ep, Options{}); err == nil {
			t.Errorf("%s: a pool was made", name)
		}
	}
	if err := (Endpoint{}).Validate(); strings.Count(err.Error(), "\n") < 5 {
		t.Errorf("all faults want to be named at once: %v", err)
	}
}

func TestDefaults(t *testing.T) {
	ep := endpoint("a:1").withDefaults()
	if ep.Limits.Connections != 20 || ep.Timeouts.Dot != 10*time.Minute || ep.Limits.MaxAge != 5*time.Minute {
		t.Errorf("%+v", ep)
	}
	ep = endpoint("a:1")
	ep.Limits.PlatformLimit, ep.Limits.Backoff = 2*time.Minute, time.Hour
	ep = ep.withDefaults()
	if ep.Limits.MaxAge != time.Minute || ep.Limits.MaxIdle != 30*time.Second || ep.Limits.BackoffMax != time.Hour {
		t.Errorf("%+v", ep)
	}
	if err := ep.Validate(); err != nil {
		t.Errorf("defaults are not valid: %v", err)
	}
}
