package webhook

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"syscall"
	"time"

	"mailcutover/notice"
)

// Options say where events go.
type Options struct {
	URL     string
	Secrets [][]byte       // one or more, from [ParseSecret]
	Roots   *x509.CertPool // that the receiver's certificate is checked against; nil: the system's
	Timeout time.Duration  // of one attempt; more than 0

	AllowPlaintext bool // http://
	AllowLoopback  bool // addresses of this host
	Agent          string
	Now            func() time.Time // nil: time.Now
}

// Sender sends to one URL. Use [New].
type Sender struct {
	o      Options
	client *http.Client
}

// maxAnswer is how much of an answer is read, so that the connection can be used again.
const maxAnswer = 16 << 10

// ErrForbidden is a URL, or an address that it leads to, that isn't allowed.
var ErrForbidden = errors.New("not allowed for webhooks")

// CheckURL says what is wrong with a URL.
func CheckURL(text string, allowPlaintext, allowLoopback bool) error {
	u, err := url.Parse(text)
	switch {
	case err != nil || u.Host == "" || u.Opaque != "":
		return errors.New("want https://HOST/PATH")
	case u.User != nil:
		return errors.New("want no user and password in it")
	case u.Fragment != "":
		return errors.New("want no fragment in it")
	case u.Scheme == "http" && !allowPlaintext:
		return fmt.Errorf("%w: plain HTTP", ErrForbidden)
	case u.Scheme != "https" && u.Scheme != "http":
		return errors.New("want https://HOST/PATH")
	}
	host := u.Hostname()
	if ip, err := netip.ParseAddr(host); err == nil {
		return checkAddr(ip, allowLoopback)
	}
	if host == "localhost" && !allowLoopback {
		return fmt.Errorf("%w: %s is this host", ErrForbidden, host)
	}
	return nil
}

// checkAddr refuses addresses that no receiver of events has.
func checkAddr(ip netip.Addr, allowLoopback bool) error {
	ip = ip.Unmap()
	switch {
	case ip.IsLoopback() && !allowLoopback, ip.IsUnspecified():
		return fmt.Errorf("%w: %s is this host", ErrForbidden, ip)
	case ip.IsLinkLocalUnicast(), ip.IsMulticast(), ip.IsInterfaceLocalMulticast():
		return fmt.Errorf("%w: %s is link-local or multicast", ErrForbidden, ip)
	}
	return nil
}

// New returns a sender.
func New(o Options) (*Sender, error) {
	if err := CheckURL(o.URL, o.AllowPlaintext, o.AllowLoopback); err != nil {
		return nil, fmt.Errorf("webhook: %w", err) // the URL may hold what only the receiver should know
	}
	if len(o.Secrets) == 0 || o.Timeout <= 0 {
		return nil, fmt.Errorf("webhook: %d secrets and a timeout of %s: want one or more of both", len(o.Secrets), o.Timeout)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	dialer := &net.Dialer{Timeout: o.Timeout, Control: func(_, address string, _ syscall.RawConn) error {
		// By the address that a name led to, at this very moment.
		at, err := netip.ParseAddrPort(address)
		if err != nil {
			return err
		}
		return checkAddr(at.Addr(), o.AllowLoopback)
	}}
	return &Sender{o: o, client: &http.Client{
		Timeout: o.Timeout,
		Transport: &http.Transport{
			DialContext: dialer.DialContext, TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: o.Roots},
			TLSHandshakeTimeout: o.Timeout, ResponseHeaderTimeout: o.Timeout, MaxResponseHeaderBytes: maxAnswer,
			MaxIdleConns: 1, IdleConnTimeout: 30 * time.Second, ForceAttemptHTTP2: true,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}, nil
}

// Close ends connections that nothing is under way on.
func (s *Sender) Close() { s.client.CloseIdleConnections() }

// Send sends one event. nil: the receiver has it.
func (s *Sender) Send(ctx context.Context, e *notice.Event) error {
	body, err := json.Marshal(e)
	if err != nil {
		return fmt.Errorf("encode event %s: %w", e.ID, err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.o.URL, bytes.NewReader(body))
	if err != nil {
		return errors.New("make a call of the webhook's URL")
	}
	at := s.o.Now()
	req.Header.Set("Content-Type", "application/cloudevents+json; charset=utf-8")
	req.Header.Set("User-Agent", s.o.Agent)
	req.Header.Set("webhook-id", e.ID)
	req.Header.Set("webhook-timestamp", strconv.FormatInt(at.Unix(), 10))
	req.Header.Set("webhook-signature", sign(s.o.Secrets, e.ID, at, body))
	res, err := s.client.Do(req)
	if err != nil {
		if failed, ok := errors.AsType[*url.Error](err); ok {
			err = failed.Err // without the URL
		}
		return fmt.Errorf("send event %s: %w", e.ID, err)
	}
	_, _ = io.Copy(io.Discard, io.LimitReader(res.Body, maxAnswer)) // what it says besides its code is of no use
	_ = res.Body.Close()
	switch c := res.StatusCode; {
	case c >= 200 && c < 300:
		return nil
	case c == http.StatusBadRequest, c == http.StatusRequestEntityTooLarge, c == http.StatusUnsupportedMediaType, c == http.StatusUnprocessableEntity:
		return fmt.Errorf("send event %s: %w: it answered %d", e.ID, notice.ErrRejected, c)
	default:
		return fmt.Errorf("send event %s: it answered %d", e.ID, c)
	}
}

// Host returns of a URL what may be shown: its scheme and host. The rest may be a secret.
func Host(text string) string {
	u, err := url.Parse(text)
	if err != nil {
		return ""
	}
	return u.Scheme + "://" + u.Host
}
