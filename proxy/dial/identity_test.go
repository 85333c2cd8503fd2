package dial

import (
	"bufio"
	"bytes"
	"net/netip"
	"testing"

	proxyproto "github.com/pires/go-proxyproto"
)

// TestProxyHeader has another's parser read ours.
func TestProxyHeader(t *testing.T) {
	for _, c := range []struct{ client, local, from, to string }{
		{"192.0.2.7:40001", "198.51.100.1:993", "192.0.2.7:40001", "198.51.100.1:993"},
		{"[2001:db8::7]:1", "[2001:db8::1]:143", "[2001:db8::7]:1", "[2001:db8::1]:143"},
		{"[::ffff:192.0.2.7]:5", "198.51.100.1:993", "192.0.2.7:5", "198.51.100.1:993"},
		{"[2001:db8::7]:1", "198.51.100.1:25", "[2001:db8::7]:1", "198.51.100.1:25"}, // mapped
		{"", "198.51.100.1:25", "", ""},
		{"192.0.2.7:40001", "", "", ""},
	} {
		var client, local netip.AddrPort
		if c.client != "" {
			client = netip.MustParseAddrPort(c.client)
		}
		if c.local != "" {
			local = netip.MustParseAddrPort(c.local)
		}
		r := bufio.NewReader(bytes.NewReader(append(AppendProxyV2([]byte{}, client, local), "more"...)))
		h, err := proxyproto.Read(r)
		if err != nil {
			t.Fatalf("%s: %v", c.client, err)
		}
		if rest, _ := r.Peek(5); string(rest) != "more" {
			t.Errorf("%s: %q is left of what came behind", c.client, rest)
		}
		if c.from == "" {
			if h.Command != proxyproto.LOCAL {
				t.Errorf("%s to %s: command %v, want LOCAL", c.client, c.local, h.Command)
			}
			continue
		}
		if h.SourceAddr.String() != c.from || h.DestinationAddr.String() != c.to {
			t.Errorf("read %v to %v, want %s to %s", h.SourceAddr, h.DestinationAddr, c.from, c.to)
		}
	}
}

func TestXtext(t *testing.T) {
	long := string(bytes.Repeat([]byte("x"), 300))
	for in, want := range map[string]string{
		"plain.example": "plain.example", "a b": "a+20b", "+=": "+2B+3D", "\r\n\x00": "+0D+0A+00", "m\u00fc": "m+C3+BC", long: long[:200],
	} {
		if got := string(AppendXtext(nil, in)); got != want {
			t.Errorf("%q became %q, want %q", in, got, want)
		}
	}
}

func TestLoopbackHost(t *testing.T) {
	for host, want := range map[string]bool{
		"127.0.0.1:25": true, "[::1]:25": true, "localhost:25": true, "LocalHost:25": true, "127.9.9.9:1": true,
		"192.0.2.1:25": false, "localhost.example:25": false, "[2001:db8::1]:25": false, "": false,
	} {
		if LoopbackHost(host) != want {
			t.Errorf("%q: want %v", host, want)
		}
	}
}
