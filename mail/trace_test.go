package mail

import (
	"net/netip"
	"strings"
	"testing"
	"time"
)

func testTrace() *Trace {
	return &Trace{
		Client: Client{
			Addr: netip.MustParseAddrPort("192.0.2.1:1025"), Name: "relay.example", Helo: "helo.example", With: "ESMTPS",
		},
		Node: "mx.example", Installation: "berlin", Transaction: "01jd2k3m4n5p6q7r8s9t0u1v2a",
		Time: time.Date(2026, 11, 21, 18, 30, 0, 0, time.FixedZone("", 3600)),
	}
}

func TestTraceLine(t *testing.T) {
	const want = "Received: from helo.example (relay.example [192.0.2.1])\r\n" +
		"\tby mx.example (mailcutover berlin) with ESMTPS id 01jd2k3m4n5p6q7r8s9t0u1v2a;\r\n" +
		"\tSat, 21 Nov 2026 18:30:00 +0100\r\n"
	if got := string(testTrace().Append(nil)); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}

// TestTraceOfStrangePeers wants nothing that a peer says to change the line's form.
func TestTraceOfStrangePeers(t *testing.T) {
	for helo, want := range map[string]string{
		"":                            "from unknown (",
		"a) by evil (mailcutover":     "from a??by?evil??mailcutover (",
		"a\r\nX: y":                   "from a??X:?y (",
		`a"b\c<d>;e`:                  "from a?b?c?d??e (",
		"b\u00fcro.example":           "from xn--bro-hoa.example (",
		"b\u00fcro)\u00fc":            "from xn--bro?-",
		strings.Repeat("\u00fc.", 85): "from " + strings.Repeat("??.", 85) + " (", // 8 bytes as A-label
		"b\xffro":                     "from b?ro (",
	} {
		tr := testTrace()
		tr.Client.Helo = helo
		got := string(tr.Append(nil))
		if !strings.Contains(got, want) || strings.Count(got, "\r\n") != 3 {
			t.Errorf("%q: %q does not contain %q", helo, got, want)
		}
	}
	tr := testTrace()
	tr.Client.Addr, tr.Client.Name = netip.MustParseAddrPort("[2001:db8::1]:25"), ""
	if got := string(tr.Append(nil)); !strings.Contains(got, "([IPv6:2001:db8::1])") {
		t.Errorf("line is %q", got)
	}
	tr.Client.Addr, tr.Client.Helo, tr.Client.With = netip.AddrPort{}, "b\u00fcro", "UTF8SMTPS"
	if got := string(tr.Append(nil)); !strings.Contains(got, "from xn--bro-hoa ([unknown])") {
		t.Errorf("line is %q", got)
	}
}

var traced = []struct {
	name      string
	message   string
	hops, own int
}{
	{"empty", "", 0, 0},
	{"no header", "\r\nReceived: in the body\r\n", 0, 0},
	{"one", "Received: from a by b\r\n\r\n", 1, 0},
	{"case", "RECEIVED: x\r\nreceived: y\r\nReceived:z\r\n", 3, 0},
	{"body is not looked at", "Received: a\r\nSubject: x\r\n\r\nReceived: b\r\n", 1, 0},
	{"folded", "Received: a\r\n\tb\r\n c\r\nReceived: d\r\n\r\n", 2, 0},
	{"folded lines that look like fields", "Subject: a\r\n Received: b\r\n\r\n", 0, 0},
	{"other names", "Received-SPF: a\r\nX-Received: b\r\nReceive: c\r\n\r\n", 0, 0},
	{"own", string(testTrace().Append(nil)) + "Subject: x\r\n\r\n", 1, 1},
	{"own, behind a long name", "Received: from " + strings.Repeat("x", 255) + " (" + strings.Repeat("y", 255) + "\r\n\tby " + strings.Repeat("z", 255) + " (mailcutover berlin) with x\r\n\r\n", 1, 1},
	{"another installation", strings.ReplaceAll(string(testTrace().Append(nil)), "berlin", "berlin2") + "\r\n", 1, 0},
	{"the mark elsewhere", "Subject: (mailcutover berlin)\r\n\r\n(mailcutover berlin)\r\n", 0, 0},
	{"fifty", strings.Repeat("Received: x\r\n", 50) + "\r\n", 50, 0},
	{"a long field between", "Received: a\r\nX: " + strings.Repeat("x", 10_000) + "\r\n\t" + strings.Repeat("y", 3000) + "\r\nReceived: b\r\n\r\n", 2, 0},
	{"a long field at the end", "Received: a\r\nX: " + strings.Repeat("x", 10_000) + "\r\n\r\nReceived: b\r\n", 1, 0},
	{"ends within a field", "Received: a\r\nReceived: b", 2, 0},
	{"a blank line that is folded", "Received: a\r\n \r\nReceived: b\r\n\r\n", 2, 0},
}

// TestTraceScannerCutAnywhere scans each message whole, byte by byte, and in two parts
// cut at every place.
func TestTraceScannerCutAnywhere(t *testing.T) {
	for _, c := range traced {
		check := func(parts ...string) {
			t.Helper()
			s := TraceScanner{Installation: "berlin"}
			for _, p := range parts {
				s.Scan([]byte(p))
			}
			done := s.done
			s.End()
			if s.Hops() != c.hops || s.Own() != c.own || !s.done {
				t.Fatalf("%s: %s, want %d and %d (parts %q)", c.name, s.String(), c.hops, c.own, parts)
			}
			if want := strings.HasPrefix(c.message, "\r\n") || strings.Contains(c.message, "\r\n\r\n"); done != want {
				t.Fatalf("%s: the header's end was seen: %v, want %v (parts %q)", c.name, done, want, parts)
			}
		}
		check(c.message)
		check(strings.Split(c.message, "")...)
		for i := range c.message {
			if i < 2000 {
				check(c.message[:i], c.message[i:])
			}
		}
	}
}

// FuzzTraceScanner wants the counts not to depend on where the message is cut.
func FuzzTraceScanner(f *testing.F) {
	for _, c := range traced {
		f.Add([]byte(c.message), 3)
	}
	f.Fuzz(func(t *testing.T, message []byte, n int) {
		if n < 1 {
			return
		}
		whole, cut := TraceScanner{Installation: "berlin"}, TraceScanner{Installation: "berlin"}
		whole.Scan(message)
		for rest := message; len(rest) > 0; {
			part := rest[:min(n, len(rest))]
			cut.Scan(part)
			rest = rest[len(part):]
		}
		whole.End()
		cut.End()
		if whole.Hops() != cut.Hops() || whole.Own() != cut.Own() {
			t.Fatalf("%q: whole %s, in pieces of %d %s", message, whole.String(), n, cut.String())
		}
	})
}
