package autoconfig

import (
	"encoding/xml"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"testing"
	"time"
)

func options() Options {
	return Options{
		Name: "Post & Amt", Connections: 10,
		Servers: []Mail{{IMAP, "imap.example.org", 993, true}, {POP3, "pop.example.org", 110, false}, {Submission, "smtp.example.org", 587, false}},
		Served: func(domain string) (bool, bool) {
			return domain == "health.example" || domain == "xn--mnchen-3ya.example", domain != "lost.example"
		},
		Logger: slog.New(slog.DiscardHandler),
	}
}

func ask(s *Server, method, target, host, peer string, header ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, target, nil)
	if host != "" {
		r.Host = host
	}
	if peer != "" {
		r.RemoteAddr = peer
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Add(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	s.ServeHTTP(w, r)
	return w
}

const wellKnown = "/.well-known/autoconfig/mail/config-v1.1.xml"

func TestDocument(t *testing.T) {
	const want = xml.Header + `<clientConfig version="1.1">
  <emailProvider id="health.example">
    <domain>health.example</domain>
    <displayName>Post &amp; Amt</displayName>
    <displayShortName>Post &amp; Amt</displayShortName>
    <incomingServer type="imap">
      <hostname>imap.example.org</hostname>
      <port>993</port>
      <socketType>SSL</socketType>
      <authentication>password-cleartext</authentication>
      <username>%EMAILADDRESS%</username>
    </incomingServer>
    <incomingServer type="pop3">
      <hostname>pop.example.org</hostname>
      <port>110</port>
      <socketType>STARTTLS</socketType>
      <authentication>password-cleartext</authentication>
      <username>%EMAILADDRESS%</username>
    </incomingServer>
    <outgoingServer type="smtp">
      <hostname>smtp.example.org</hostname>
      <port>587</port>
      <socketType>STARTTLS</socketType>
      <authentication>password-cleartext</authentication>
      <username>%EMAILADDRESS%</username>
    </outgoingServer>
  </emailProvider>
</clientConfig>
`
	s := New(options())
	// The same for whoever has the domain, by either way.
	for _, target := range []string{
		wellKnown + "?emailaddress=anna@health.example", wellKnown + "?emailaddress=nobody@Health.Example", "/mail/config-v1.1.xml?emailaddress=%22a+b%22%40health.example",
	} {
		w := ask(s, "GET", target, "autoconfig.other.example", "")
		if w.Code != 200 || w.Body.String() != want || w.Header().Get("Content-Type") != "application/xml; charset=utf-8" {
			t.Errorf("%s: %d\n%s", target, w.Code, w.Body)
		}
	}
	for _, host := range []string{"autoconfig.health.example", "AUTOCONFIG.health.example:8080", "health.example"} {
		if w := ask(s, "GET", "/mail/config-v1.1.xml", host, ""); w.Code != 200 || w.Body.String() != want {
			t.Errorf("host %s: %d\n%s", host, w.Code, w.Body)
		}
	}
	if w := ask(s, "HEAD", wellKnown+"?emailaddress=a@health.example", "", ""); w.Code != 200 || w.Body.Len() != 0 || w.Header().Get("Content-Length") != fmt.Sprint(len(want)) {
		t.Errorf("HEAD: %d, %d bytes", w.Code, w.Body.Len())
	}
	if w := ask(s, "GET", wellKnown+"?emailaddress="+url.QueryEscape("a@münchen.example"), "", ""); w.Code != 200 {
		t.Errorf("a domain in Unicode: %d", w.Code)
	}
}

func TestRefused(t *testing.T) {
	s := New(options())
	for _, c := range []struct {
		method, target string
		code           int
	}{
		{"GET", wellKnown + "?emailaddress=a@other.example", 404},
		{"GET", wellKnown + "?emailaddress=a@lost.example", 503},
		{"GET", wellKnown + "?emailaddress=nobody", 400},
		{"GET", wellKnown + "?emailaddress=a%0d%0a@health.example", 400},
		{"GET", "/", 404},
		{"GET", "/mail/config-v1.1.xml/", 404},
		{"POST", wellKnown + "?emailaddress=a@health.example", 405},
	} {
		if w := ask(s, c.method, c.target, "mail.example.org", ""); w.Code != c.code {
			t.Errorf("%s %s: %d, want %d", c.method, c.target, w.Code, c.code)
		}
	}
}

func TestRates(t *testing.T) {
	o := options()
	o.Requests, o.ProxyNets = 3, []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}
	s := New(o)
	const target = wellKnown + "?emailaddress=a@health.example"
	count := func(code int, peer string, header ...string) {
		t.Helper()
		if w := ask(s, "GET", target, "", peer, header...); w.Code != code {
			t.Errorf("%s %v: %d, want %d", peer, header, w.Code, code)
		}
	}
	for i := range 3 {
		count(200, fmt.Sprintf("192.0.2.%d:1", i+1))
	}
	count(429, "192.0.2.9:1")
	count(200, "198.51.100.1:1")
	count(429, "192.0.2.9:1", "X-Forwarded-For", "203.0.113.1") // whom we don't believe
	for range 3 {
		count(200, "10.1.1.1:1", "X-Forwarded-For", "192.0.2.1", "X-Forwarded-For", "1.2.3.4, 2001:db8:0:1::7")
	}
	count(429, "10.1.1.1:1", "X-Forwarded-For", "2001:db8:0:1::8")
	count(200, "10.1.1.1:1")

	r := rates{most: 1}
	now := time.Now()
	for i := range 2 * maxNets {
		r.allow(netip.AddrFrom4([4]byte{byte(i >> 8), byte(i), byte(i >> 16), 1}), now)
	}
	if len(r.counts) > maxNets+1 {
		t.Errorf("%d nets are counted", len(r.counts))
	}
	if a := netip.MustParseAddr("0.0.0.9"); r.allow(a, now) || !r.allow(a, now.Add(time.Minute)) {
		t.Error("a minute later it counts still, or did not before")
	}
}

func TestServe(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := New(options())
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	res, err := http.Get("http://" + l.Addr().String() + wellKnown + "?emailaddress=a@health.example")
	if err != nil {
		t.Fatal(err)
	}
	_, err = io.Copy(io.Discard, res.Body)
	if res.Body.Close(); err != nil || res.StatusCode != 200 {
		t.Errorf("%d, %v", res.StatusCode, err)
	}
	if err := s.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	if err := <-served; err != nil {
		t.Error(err)
	}
}
