package imap

import (
	"bytes"
	"testing"

	"mailcutover/proxy/login"
)

// A client's login in one segment, and the platform's half: what this package costs of both.
func BenchmarkServe(b *testing.B) {
	input := []byte("a CAPABILITY\r\nb LOGIN \"anna@health.example\" \"secret\"\r\n")
	b.ReportAllocs()
	for b.Loop() {
		if s := serve(input, 0, 0, login.Front{}, true); s.session == nil {
			b.Fatal(s.err)
		}
	}
}

func BenchmarkAuthenticate(b *testing.B) {
	input := []byte("* OK [CAPABILITY IMAP4rev1 SASL-IR LOGIN-REFERRALS ID ENABLE IDLE LITERAL+ AUTH=PLAIN AUTH=LOGIN] Dovecot ready.\r\n\x1e" +
		"* CAPABILITY IMAP4rev1 SASL-IR LOGIN-REFERRALS ID ENABLE IDLE SORT THREAD=REFERENCES CONDSTORE QRESYNC\r\nm1 OK Logged in\r\n")
	a := &login.Attempt{Login: "anna@health.example", Secret: []byte("secret"), Mechanism: login.MechanismPassword}
	a.SetLast(func() error { return nil })
	b.ReportAllocs()
	for b.Loop() {
		l := login.NewLeg(login.LegOptions{Net: &tape{in: bytes.NewReader(input), turns: true}})
		if _, err := (Dialogue{}).Authenticate(l, a); err != nil {
			b.Fatal(err)
		}
	}
}
