package autoconfig

import (
	"bytes"
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/net/netutil"

	"mailcutover/mail"
	"mailcutover/routing"
)

// paths are where mail programs ask.
var paths = []string{"/mail/config-v1.1.xml", "/.well-known/autoconfig/mail/config-v1.1.xml"}

// hostPrefix begins the host that mail programs ask at a domain.
const hostPrefix = "autoconfig."

// kept is how long mail programs and proxies may keep an answer: it changes with the settings.
const kept = time.Hour

// Protocol is what a server speaks, in the words of the format.
type Protocol string

const (
	IMAP       Protocol = "imap"
	POP3       Protocol = "pop3"
	Submission Protocol = "smtp"
)

// Mail is a server that mail programs are told of.
type Mail struct {
	Protocol Protocol
	Host     string
	Port     int
	Implicit bool // TLS from the first byte on; else STARTTLS
}

// Options are what a Server works with.
type Options struct {
	Name        string // of the service; empty: the domain
	Servers     []Mail // in this order
	ProxyNets   []netip.Prefix
	Connections int // at once; 0: no limit
	Requests    int // of one client net (IPv4 /24, IPv6 /64) in a minute; 0: no limit

	// Served reports whether a domain, in canonical form, is served; known: whether that can be
	// said.
	Served func(domain string) (served, known bool)
	Logger *slog.Logger
}

// Server answers mail programs. Use [New].
type Server struct {
	opts  Options
	http  *http.Server
	rates rates
}

// New returns a server that serves nothing yet.
func New(o Options) *Server {
	s := &Server{opts: o}
	s.rates.most = o.Requests
	s.http = &http.Server{
		Handler: s, ReadTimeout: 10 * time.Second, WriteTimeout: 10 * time.Second, IdleTimeout: 30 * time.Second, MaxHeaderBytes: 16 << 10,
		ErrorLog: slog.NewLogLogger(o.Logger.Handler(), slog.LevelDebug),
	}
	return s
}

// Serve answers on l, which it closes, until Shutdown; then it returns nil.
func (s *Server) Serve(l net.Listener) error {
	if s.opts.Connections > 0 {
		l = netutil.LimitListener(l, s.opts.Connections)
	}
	if err := s.http.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve autoconfiguration at %s: %w", l.Addr(), err)
	}
	return nil
}

// Shutdown takes no new connection, and cuts those that are left when ctx ends.
func (s *Server) Shutdown(ctx context.Context) error {
	if err := s.http.Shutdown(ctx); err != nil {
		return s.http.Close()
	}
	return nil
}

// ServeHTTP answers one request.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "no-store")
	code, domain := s.judge(r)
	if code != http.StatusOK {
		if code == http.StatusTooManyRequests || code == http.StatusServiceUnavailable {
			h.Set("Retry-After", "60")
		}
		if code == http.StatusMethodNotAllowed {
			h.Set("Allow", "GET, HEAD")
		}
		s.opts.Logger.Debug("autoconfiguration refused", "peer", r.RemoteAddr, "code", code)
		http.Error(w, http.StatusText(code), code)
		return
	}
	b, err := document(domain, s.opts.Name, s.opts.Servers)
	if err != nil {
		s.opts.Logger.Error("autoconfiguration can't be written", "error", err)
		http.Error(w, http.StatusText(http.StatusInternalServerError), http.StatusInternalServerError)
		return
	}
	h.Set("Content-Type", "application/xml; charset=utf-8")
	h.Set("Cache-Control", "public, max-age="+strconv.Itoa(int(kept.Seconds())))
	h.Set("Content-Length", strconv.Itoa(len(b)))
	if r.Method == http.MethodGet {
		_, _ = w.Write(b) // the client is gone: there is nobody to tell
	}
}

// judge returns the status of the answer, and the domain that is asked for.
func (s *Server) judge(r *http.Request) (code int, domain string) {
	switch {
	case !s.rates.allow(s.client(r), time.Now()):
		return http.StatusTooManyRequests, ""
	case !slices.Contains(paths, r.URL.Path):
		return http.StatusNotFound, ""
	case r.Method != http.MethodGet && r.Method != http.MethodHead:
		return http.StatusMethodNotAllowed, ""
	}
	domain, ok := asked(r)
	if !ok {
		return http.StatusBadRequest, ""
	}
	switch served, known := s.opts.Served(domain); {
	case served:
		return http.StatusOK, domain
	case !known:
		return http.StatusServiceUnavailable, ""
	}
	return http.StatusNotFound, ""
}

// asked returns the domain of the address that the mail program has, or of the host that it
// asks: nothing else of the address is looked at.
func asked(r *http.Request) (domain string, ok bool) {
	if text := r.URL.Query().Get("emailaddress"); text != "" {
		p, err := mail.ParsePath(text, true)
		if err != nil {
			return "", false
		}
		domain, err = routing.CanonicalDomain(p.Domain())
		return domain, err == nil
	}
	host := r.Host
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	domain, err := routing.CanonicalDomain(strings.TrimPrefix(strings.ToLower(host), hostPrefix))
	return domain, err == nil
}

// client returns who asks: the peer, or whom a reverse proxy named last.
func (s *Server) client(r *http.Request) netip.Addr {
	peer, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.Addr{}
	}
	addr := peer.Addr().Unmap()
	if !slices.ContainsFunc(s.opts.ProxyNets, func(n netip.Prefix) bool { return n.Contains(addr) }) {
		return addr
	}
	all := strings.Split(strings.Join(r.Header.Values("X-Forwarded-For"), ","), ",")
	if named, err := netip.ParseAddr(strings.TrimSpace(all[len(all)-1])); err == nil {
		return named.Unmap()
	}
	return addr
}

type clientConfig struct {
	XMLName  xml.Name `xml:"clientConfig"`
	Version  string   `xml:"version,attr"`
	Provider provider `xml:"emailProvider"`
}

type provider struct {
	ID       string   `xml:"id,attr"`
	Domain   string   `xml:"domain"`
	Name     string   `xml:"displayName"`
	Short    string   `xml:"displayShortName"`
	Incoming []server `xml:"incomingServer"`
	Outgoing []server `xml:"outgoingServer"`
}

type server struct {
	Type     Protocol `xml:"type,attr"`
	Host     string   `xml:"hostname"`
	Port     int      `xml:"port"`
	Socket   string   `xml:"socketType"`
	Auth     string   `xml:"authentication"`
	Username string   `xml:"username"`
}

// document returns what a mail program is told for a domain.
func document(domain, name string, servers []Mail) ([]byte, error) {
	if name == "" {
		name = domain
	}
	p := provider{ID: domain, Domain: domain, Name: name, Short: name}
	for _, m := range servers {
		// The mail program puts the user's address in: we don't know it, and don't look.
		one := server{Type: m.Protocol, Host: m.Host, Port: m.Port, Socket: "STARTTLS", Auth: "password-cleartext", Username: "%EMAILADDRESS%"}
		if m.Implicit {
			one.Socket = "SSL"
		}
		if m.Protocol == Submission {
			p.Outgoing = append(p.Outgoing, one)
		} else {
			p.Incoming = append(p.Incoming, one)
		}
	}
	var b bytes.Buffer
	b.WriteString(xml.Header)
	e := xml.NewEncoder(&b)
	e.Indent("", "  ")
	if err := e.Encode(clientConfig{Version: "1.1", Provider: p}); err != nil {
		return nil, fmt.Errorf("write the autoconfiguration of %s: %w", domain, err)
	}
	b.WriteByte('\n')
	return b.Bytes(), nil
}
