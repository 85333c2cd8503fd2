package relay

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"mailcutover/proxy/dial"
)

// connect makes a connection to the next host that may be dialled, and goes on to the
// others if that fails. A probe may dial hosts that are backing off.
func (p *Pool) connect(ctx context.Context, id identity, probe bool) (*conn, error) {
	var last error
	tried := make([]bool, len(p.hosts))
	for {
		h, err := p.pick(tried, probe)
		if h == nil {
			if last == nil {
				last = p.connectionError(nil, "open a transaction", err)
			}
			return nil, last
		}
		start := time.Now()
		c, err := p.dialHost(ctx, h, id)
		p.obs.Dialled(h.name, time.Since(start), err)
		p.mu.Lock()
		h.trying = false
		p.mu.Unlock()
		if err == nil {
			return c, nil
		}
		last = err
		if ctx.Err() != nil {
			return nil, err
		}
		if !p.full(h, err) {
			p.failed(h, err)
		}
	}
}

// pick returns the next host in turn that wasn't tried, or nil and why there is none.
func (p *Pool) pick(tried []bool, probe bool) (*host, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	for i := range p.hosts {
		n := (p.next + i) % len(p.hosts)
		if h := p.hosts[n]; !tried[n] && (probe || h.free(now)) {
			tried[n] = true
			h.trying = true
			p.next = n + 1
			return h, nil
		}
	}
	return nil, p.allDown(now)
}

// dialHost connects to h and brings the connection to where MAIL can be sent. Errors are
// of type *ConnectionError.
func (p *Pool) dialHost(ctx context.Context, h *host, id identity) (_ *conn, err error) {
	h.conns.Add(1)
	defer func() {
		if err != nil {
			h.conns.Add(-1)
		}
	}()
	dctx, cancel := context.WithTimeout(ctx, p.ep.Timeouts.Dial)
	nc, err := p.dial(dctx, "tcp", h.name)
	cancel()
	if err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return nil, p.connectionError(h, "dial", err)
	}
	if err := dial.Harden(nc, p.ep.Timeouts.Unacknowledged); err != nil {
		nc.Close()
		return nil, p.connectionError(h, "set socket options", err)
	}
	c := newConn(nc, h, p.ep.Timeouts.Block, p.ep.Limits.PlatformLimit)
	c.identity = id
	if err := c.watch(ctx); err != nil {
		c.cut()
		return nil, p.connectionError(h, "dial", err)
	}
	if doing, err := p.greet(ctx, c); err != nil {
		c.cut()
		return nil, p.connectionError(h, doing, err)
	}
	caps := c.caps
	p.caps.Store(&caps)
	c.counted = true
	p.log.Debug("connected to the platform", "peer", h.name, "tls", c.caps.TLS, "verified", c.verified)
	return c, nil
}

// greet does all that comes before the first MAIL. On an error it says at what.
func (p *Pool) greet(ctx context.Context, c *conn) (doing string, err error) {
	if p.ep.Identity == IdentityProxyV2 {
		c.out = dial.AppendProxyV2(c.out, c.identity.Addr, c.identity.Local)
		if err := c.flush(); err != nil {
			return "PROXY header", err
		}
	}
	if p.ep.TLS.Implicit {
		if err := p.handshake(ctx, c); err != nil {
			return "TLS handshake", err
		}
	}
	code, err := c.read(p.ep.Timeouts.Greeting)
	if err == nil && code != 220 {
		err = p.refused(c, "connection", code)
	}
	if err != nil {
		return "greeting", err
	}
	if err := p.ehlo(c); err != nil {
		return p.hello(), err
	}
	if !p.ep.TLS.Implicit && p.ep.TLS.Policy != dial.TLSNone {
		if err := p.startTLS(ctx, c); err != nil {
			return "STARTTLS", err
		}
	}
	if p.ep.Auth != nil {
		if err := p.authenticate(c); err != nil {
			return "AUTH", err
		}
	}
	if p.ep.Identity == IdentityXCLIENT && c.identity != (identity{}) {
		if err := p.xclient(c); err != nil {
			return "XCLIENT", err
		}
	}
	return "", nil
}

// hello is the verb that begins a session.
func (p *Pool) hello() string {
	if p.ep.Protocol == ProtocolLMTP {
		return "LHLO"
	}
	return "EHLO"
}

// ehlo greets the platform and reads what it can do.
func (p *Pool) ehlo(c *conn) error {
	code, err := c.command(p.hello()+" "+p.ep.Helo, p.ep.Timeouts.Command)
	if err != nil {
		return err
	}
	if code != 250 {
		return p.refused(c, p.hello(), code)
	}
	encrypted := c.caps.TLS
	c.caps = parseCapabilities(string(c.reply.text))
	c.caps.TLS = encrypted
	if most := p.ep.MaxSize; most > 0 && (c.caps.Size == 0 || c.caps.Size > most) {
		c.caps.Size = most
	}
	return nil
}

// startTLS encrypts the connection as the policy asks.
func (p *Pool) startTLS(ctx context.Context, c *conn) error {
	must := p.ep.TLS.Policy != dial.TLSOpportunistic
	if !c.caps.StartTLS {
		if must {
			return fmt.Errorf("%w: not announced, though the TLS policy is %s", ErrNeedsOperator, p.ep.TLS.Policy)
		}
		return nil
	}
	code, err := c.command("STARTTLS", p.ep.Timeouts.Command)
	if err != nil {
		return err
	}
	if code != 220 {
		if must || code == 421 {
			return p.refused(c, "STARTTLS", code)
		}
		return nil
	}
	if c.reply.br.Buffered() > 0 {
		// Whatever it is, it was put in by somebody who can write to the plain
		// connection (CVE-2011-0411 and its kin).
		return fmt.Errorf("%w: plain text after the answer to STARTTLS", ErrProtocol)
	}
	if err := p.handshake(ctx, c); err != nil {
		return err
	}
	return p.ehlo(c) // what was announced in plain text is forgotten, RFC 3207 section 4.2
}

// handshake puts TLS over the socket.
func (p *Pool) handshake(ctx context.Context, c *conn) error {
	deadline := c.within(p.ep.Timeouts.Command)
	c.raw.SetDeadline(deadline)
	if c.interrupted.Load() != nil {
		return c.cause()
	}
	t := tls.Client(c.raw, c.host.tls)
	if err := t.Handshake(); err != nil {
		doing := "TLS handshake with " + c.host.tls.ServerName
		if c.interrupted.Load() != nil || errors.Is(err, os.ErrDeadlineExceeded) {
			return c.ioError(doing, err)
		}
		// Not only where the certificate is wrong: a platform that finds no cipher in
		// common may just close, as Windows' Schannel does.
		return fmt.Errorf("%w: %s, with the TLS policy %s, which does not go on in plain text, by TLS 1.2 or later with ECDHE and AES-GCM or ChaCha20: %w",
			ErrNeedsOperator, doing, p.ep.TLS.Policy, err)
	}
	c.nc = t
	c.reply.br.Reset(t)
	c.caps.TLS = true
	c.verified = p.ep.TLS.Policy == dial.TLSVerified
	return nil
}

// parseCapabilities reads the lines of an EHLO's answer (RFC 5321 section 4.1.1.1).
func parseCapabilities(text string) Capabilities {
	caps := Capabilities{Known: true}
	first := true
	for line := range strings.Lines(text) {
		words := strings.Fields(strings.ToUpper(line))
		if first || len(words) == 0 {
			first = false
			continue
		}
		switch words[0] {
		case "SIZE":
			caps.SizeKeyword = true
			if len(words) > 1 {
				// 0 and nonsense mean that no limit is known.
				if n, err := strconv.ParseInt(words[1], 10, 64); err == nil && n > 0 {
					caps.Size = n
				}
			}
		case "PIPELINING":
			caps.Pipelining = true
		case "8BITMIME":
			caps.EightBitMIME = true
		case "SMTPUTF8":
			caps.SMTPUTF8 = true
		case "DSN":
			caps.DSN = true
		case "REQUIRETLS":
			caps.RequireTLS = true
		case "STARTTLS":
			caps.StartTLS = true
		case "AUTH":
			caps.auth = append(caps.auth, words[1:]...)
		case "XCLIENT":
			caps.xclient = append([]string{}, words[1:]...)
		case "XFORWARD":
			caps.xforward = append([]string{}, words[1:]...)
		}
	}
	return caps
}

// errNoAuth is for a platform that doesn't offer what is configured.
var errNoAuth = fmt.Errorf("%w: no mechanism in common", ErrNeedsOperator)
