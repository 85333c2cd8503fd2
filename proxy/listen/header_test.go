package listen

import (
	"errors"
	"net/netip"
	"testing"

	"mailcutover/proxy/listen/listentest"
)

// wantErr is what parseHeader returns for each kind.
var wantErr = map[listentest.Kind]error{listentest.Valid: nil, listentest.Short: errHeaderShort, listentest.Invalid: errHeader}

func TestParseHeader(t *testing.T) {
	for _, c := range listentest.Headers() {
		h, n, err := parseHeader([]byte(c.Bytes + "EHLO"))
		if wantErr[c.Kind] == errHeaderShort { // what follows would complete it
			h, n, err = parseHeader([]byte(c.Bytes))
		}
		if !errors.Is(err, wantErr[c.Kind]) {
			t.Errorf("%s: error %v, want %v", c.Name, err, wantErr[c.Kind])
			continue
		}
		if err != nil {
			continue
		}
		if n != len(c.Bytes) {
			t.Errorf("%s: header of %d bytes, want %d", c.Name, n, len(c.Bytes))
		}
		var want netip.AddrPort
		if c.Client != "" {
			want = netip.MustParseAddrPort(c.Client)
		}
		if h.Client != want {
			t.Errorf("%s: client %v, want %v", c.Name, h.Client, want)
		}
		for i := range n { // every beginning of a header is one that wants more
			if _, _, err := parseHeader([]byte(c.Bytes[:i])); err != errHeaderShort {
				t.Errorf("%s: its first %d bytes give %v, want %v", c.Name, i, err, errHeaderShort)
			}
		}
	}
}

func FuzzHeader(f *testing.F) {
	for _, c := range listentest.Headers() {
		f.Add([]byte(c.Bytes))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		h, n, err := parseHeader(b)
		switch {
		case err == nil && (n <= 0 || n > len(b) || n > headerV2Bytes):
			t.Fatalf("header of %d bytes in %d", n, len(b))
		case err == nil && h.Client.IsValid() != h.Local.IsValid():
			t.Fatalf("client %v, local %v", h.Client, h.Local)
		case errors.Is(err, errHeaderShort) && len(b) >= headerV2Bytes:
			t.Fatalf("wants more than %d bytes", len(b))
		}
	})
}
