package imap

import (
	"bytes"
	"errors"
	"testing"

	"mailcutover/proxy/dial"
	"mailcutover/proxy/login"
)

// Probe learns what it can without a login, and takes leave.
func TestProbe(t *testing.T) {
	for _, test := range []struct {
		says string
		tls  login.LegTLS
		want error
		out  string
	}{
		{"* OK [CAPABILITY IMAP4rev1 AUTH=PLAIN] hi\r\n", login.LegPlain, nil, "m1 LOGOUT\r\n"},
		{"* OK hi\r\n\x1e* CAPABILITY IMAP4rev1\r\nm1 OK x\r\n", login.LegPlain, nil, "m1 CAPABILITY\r\nm2 LOGOUT\r\n"},
		{"* OK hi\r\n\x1e* CAPABILITY IMAP4rev1 UNAUTHENTICATE\r\nm1 OK x\r\n", login.LegPlain, login.ErrUnauthenticate, "m1 CAPABILITY\r\n"},
		{"* OK [CAPABILITY IMAP4rev1] hi\r\n", login.LegStartTLS, dial.ErrTLS, ""},
		{"* PREAUTH hi\r\n", login.LegPlain, errPlatform, ""},
	} {
		c := &tape{in: bytes.NewReader([]byte(test.says)), turns: true}
		l := login.NewLeg(login.LegOptions{Net: c, Target: login.Target{TLS: test.tls}})
		if _, err := (Dialogue{}).Probe(l); !errors.Is(err, test.want) {
			t.Errorf("%q: got %v, want %v", test.says, err, test.want)
		}
		if got := c.out.String(); got != test.out {
			t.Errorf("%q: sent %q, want %q", test.says, got, test.out)
		}
	}
}
