package login

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"io"
	"log/slog"
	"os"
	"strings"
	"time"

	"mailcutover/proxy/splice"
)

// mechanismWords are those of logs and metrics.
var mechanismWords = [...]string{"unknown", "password", "oauthbearer", "xoauth2"}

// String returns the word used in logs.
func (m Mechanism) String() string {
	if int(m) < len(mechanismWords) {
		return mechanismWords[m]
	}
	return mechanismWords[0]
}

// log writes the one line of a login's outcome, and counts it.
func (t *try) log(s *Session, err error) {
	took := time.Since(t.since)
	h, d := t.h, &t.who.d
	protocol := h.s.l.Dialogue.Protocol()
	cause, why := "ok", ""
	if err != nil {
		cause, why = CauseUnknown.String(), err.Error()
		var refused *Refusal
		if errors.As(err, &refused) {
			cause, why = refused.Cause.String(), ""
			if refused.Err != nil {
				why = refused.Err.Error()
			}
		} else if h.ctx.Err() != nil {
			cause = CauseDrain.String()
		}
	}
	t.p.o.Observer.LoginEnded(protocol, cause, d.Platform, took)
	name := t.login
	switch {
	case s != nil:
		name = s.login
	case name == "":
		name = t.who.login
	}
	if name == "" {
		name = t.p.names.unknown(t.a.Name)
	}
	c := h.c.Client()
	level := slog.LevelInfo
	if cause == CausePlatform.String() || cause == CauseUnknown.String() {
		level = slog.LevelWarn
	}
	attrs := [...]slog.Attr{
		slog.String("session", c.Session), slog.String("listener", c.Listener), slog.String("protocol", protocol),
		slog.String("client", c.Addr.String()), slog.String("mechanism", t.a.Mechanism.String()), slog.String("tls", c.TLS),
		slog.String("login", name), slog.String("agency", string(d.Agency)), slog.String("epoch", d.Epoch.String()),
		slog.String("platform", string(d.Platform)), slog.Float64("seconds", took.Seconds()), slog.String("reason", cause),
		slog.String("error", withoutSecret(why, t.a.Secret)),
	}
	n := len(attrs)
	if why == "" {
		n--
	}
	t.p.write(h.ctx, level, "login", attrs[:n])
}

// write writes a line. Logger.LogAttrs would look for its caller's place in the source first,
// which no line shows.
func (p *Proxy) write(ctx context.Context, level slog.Level, message string, attrs []slog.Attr) {
	h := p.log.Handler()
	if !h.Enabled(ctx, level) {
		return
	}
	r := slog.NewRecord(time.Now(), level, message, 0)
	r.AddAttrs(attrs...)
	_ = h.Handle(ctx, r) // as slog does
}

// withoutSecret returns text without the secret: a platform may repeat what it got.
func withoutSecret(text string, secret []byte) string {
	if len(bytes.TrimSpace(secret)) == 0 {
		return text
	}
	text = strings.ReplaceAll(text, string(secret), "[secret]")
	for _, e := range []*base64.Encoding{base64.StdEncoding, base64.RawStdEncoding} {
		text = strings.ReplaceAll(text, e.EncodeToString(secret), "[secret]")
	}
	return text
}

// logSession writes the one line of a session's end. by is what ended it, in one word.
func (p *Proxy) logSession(s *Session, by, reason string, e splice.Ended, lasted time.Duration) {
	attrs := [14]slog.Attr{
		slog.String("session", s.id), slog.String("listener", s.listener), slog.String("protocol", s.dialogue.Protocol()),
		slog.String("client", s.client.String()), slog.String("login", s.login), slog.String("agency", string(s.d.Agency)),
		slog.String("epoch", s.d.Epoch.String()), slog.String("platform", string(s.d.Platform)),
		slog.Int64("to_platform", e.Stats.ToPlatform), slog.Int64("to_client", e.Stats.ToClient),
		slog.Float64("seconds", lasted.Seconds()), slog.String("reason", by),
	}
	n := 12
	if reason != "" {
		attrs[n] = slog.String("note", reason)
		n++
	}
	if e.Err != nil {
		attrs[n] = slog.String("error", e.Err.Error())
		n++
	}
	p.write(context.Background(), slog.LevelInfo, "session ended", attrs[:n])
}

// logConnection writes the one line of a connection that ended before a login.
func (p *Proxy) logConnection(h *client, err error) {
	reason := "error"
	switch {
	case errors.Is(err, ErrQuit), errors.Is(err, io.EOF):
		reason, err = "quit", nil
	case errors.Is(err, errDrain):
		reason, err = "drain", nil
	case errors.Is(err, os.ErrDeadlineExceeded):
		reason, err = "idle", nil
	}
	c := h.conn.Client()
	attrs := []any{
		"session", c.Session, "listener", c.Listener, "protocol", h.s.l.Dialogue.Protocol(), "client", c.Addr,
		"seconds", time.Since(h.since).Seconds(), "reason", reason,
	}
	if err != nil {
		attrs = append(attrs, "error", err)
	}
	p.log.Info("connection ended", attrs...)
}
