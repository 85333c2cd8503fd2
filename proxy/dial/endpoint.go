package dial

import (
	"errors"
	"fmt"
	"net"
	"time"
)

// Endpoint is the configuration of one platform's endpoint, as far as the way to it goes.
type Endpoint struct {
	Platform string   // names the platform in logs
	Hosts    []string // host:port, at least one, none twice
	TLS      TLS

	DialTimeout      time.Duration // of one host's TCP connection; 0: 30 s
	HandshakeTimeout time.Duration // 0: 30 s

	// AttemptTime is how long after a dial that succeeded the caller may take to say what
	// came of it, before a host that had failed gets another attempt. 0: 1 min.
	AttemptTime time.Duration

	// Unacknowledged is how long sent bytes may stay without the peer's acknowledgement before
	// the kernel gives the connection up (TCP_USER_TIMEOUT, RFC 5482; Linux only). 0: 30 s.
	Unacknowledged time.Duration

	Backoff Backoff // zero fields: 1 s, and 30 s or First if that is more
}

// ValidateHosts returns all that is wrong with a list of hosts, as host:port; nil if nothing is.
func ValidateHosts(hosts []string) error {
	var errs []error
	if len(hosts) == 0 {
		errs = append(errs, errors.New("hosts []: want at least one host:port"))
	}
	seen := make(map[string]bool)
	for _, h := range hosts {
		if host, port, err := net.SplitHostPort(h); err != nil || host == "" || port == "" {
			errs = append(errs, fmt.Errorf("hosts %q: want host:port, such as mail.example.org:25", h))
		}
		if seen[h] {
			errs = append(errs, fmt.Errorf("hosts %q: is there twice", h))
		}
		seen[h] = true
	}
	return errors.Join(errs...)
}

// validate returns all that is wrong with e, joined; nil if nothing is.
func (e Endpoint) validate() error {
	errs := []error{ValidateHosts(e.Hosts), e.TLS.Validate()}
	for _, d := range []struct {
		key string
		d   time.Duration
	}{
		{"dial timeout", e.DialTimeout}, {"handshake timeout", e.HandshakeTimeout}, {"attempt time", e.AttemptTime},
		{"unacknowledged", e.Unacknowledged}, {"backoff", e.Backoff.First}, {"backoff max", e.Backoff.Max},
	} {
		if d.d < 0 {
			errs = append(errs, fmt.Errorf("%s %v: want a positive duration, or 0 for the default", d.key, d.d))
		}
	}
	if e.Backoff.Max > 0 && e.Backoff.Max < e.Backoff.First {
		errs = append(errs, fmt.Errorf("backoff max %v: want at least backoff, %s", e.Backoff.Max, e.Backoff.First))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("endpoint of platform %s: %w", e.Platform, err)
	}
	return nil
}

// withDefaults returns e with all zero settings replaced.
func (e Endpoint) withDefaults() Endpoint {
	b := &e.Backoff
	for _, d := range []struct {
		set *time.Duration
		to  time.Duration
	}{
		{&e.DialTimeout, 30 * time.Second},
		{&e.HandshakeTimeout, 30 * time.Second},
		{&e.AttemptTime, time.Minute},
		{&e.Unacknowledged, 30 * time.Second},
		{&b.First, time.Second},
		{&b.Max, max(30*time.Second, b.First)},
	} {
		if *d.set == 0 {
			*d.set = d.to
		}
	}
	return e
}
