package msgkey_test

import (
	"bytes"
	"testing"
	"testing/iotest"

	"mailcutover/mail"
	"mailcutover/rollback/msgkey"
)

// FuzzParse: any bytes are read, to the same keys whatever the line ends are.
func FuzzParse(f *testing.F) {
	f.Add([]byte(plain), "a1b2")
	f.Add([]byte(received(mail.NewTransactionID(), "a1b2")+plain), "a1b2")
	f.Add([]byte("Date: (((\r\nFrom: <\r\nMessage-ID: >@<\r\n"), "")
	f.Add([]byte("Received\r\n :\n\tx"), "x")
	f.Fuzz(func(t *testing.T, header []byte, installation string) {
		facts := msgkey.Parse(header, installation)
		for _, id := range facts.Transactions {
			if _, err := mail.ParseTransactionID(string(id)); err != nil {
				t.Error(err)
			}
		}
		key, ok := facts.Identity()
		if ok == key.IsZero() {
			t.Errorf("identity %v, %v", key, ok)
		}
		if bytes.ContainsRune(header, '\r') {
			return
		}
		again := msgkey.Parse(bytes.ReplaceAll(header, []byte("\n"), []byte("\r\n")), installation)
		if other, otherOK := again.Identity(); other != key || ok != otherOK {
			t.Errorf("%q with CRLF: another identity", header)
		}
	})
}

// FuzzContent: any bytes have one key, however they are cut and their lines end.
func FuzzContent(f *testing.F) {
	f.Add([]byte(asSent))
	f.Add([]byte(asRewritten))
	f.Add([]byte("Content-Type: text/html\n\n<p a=\""))
	f.Add([]byte("Content-Type: text/plain; charset=utf-16\nContent-Transfer-Encoding: base64\n\n/v8A"))
	f.Fuzz(func(t *testing.T, message []byte) {
		key, err := msgkey.Content(bytes.NewReader(message))
		if err != nil || key.IsZero() {
			t.Fatalf("%v, %v", key, err)
		}
		if again, err := msgkey.Content(iotest.OneByteReader(bytes.NewReader(message))); err != nil || again != key {
			t.Errorf("in single bytes: %v, %v, want %v", again, err, key)
		}
	})
}
