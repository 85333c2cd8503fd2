package spool

import (
	"io"
	"testing"
	"time"
)

// A sender who doesn't end his message delays those of others by little.
func TestSlowSenderHoldsNobodyUp(t *testing.T) {
	s := openStore(t, Options{Dir: t.TempDir()})
	defer s.Close()
	slow, err := s.Begin(envelope(t))
	if err != nil {
		t.Fatal(err)
	}
	defer slow.Discard()
	if _, err := io.WriteString(slow, "Subject: half"); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	for range 20 {
		accept(t, s, "Subject: whole\r\n", rcpt("anna", "one", StateHeld))
	}
	if took := time.Since(began); took > time.Minute {
		t.Errorf("20 messages took %s beside one that doesn't end", took)
	}
}
