package login

import (
	"bytes"
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
		} else if h.conn.Context().Err() != nil {
			cause = CauseDrain.String()
		}
	}
	t.p.o.Observer.LoginEnded(protocol, cause, d.Platform, took)
	name := t.who.login
	switch {
	case s != nil:
		name = s.login
	case name == "":
		name = t.p.names.unknown(t.a.Name)
	}
	c := h.c.Client()
	attrs := []any{
		"session", c.Session, "listener", c.Listener, "protocol", protocol, "client", c.Addr,
		"mechanism", t.a.Mechanism.String(), "tls", c.TLS, "login", name, "agency", d.Agency, "epoch", d.Epoch, "platform", d.Platform,
		"seconds", took.Seconds(), "reason", cause,
	}
	if why != "" {
		attrs = append(attrs, "error", withoutSecret(why, t.a.Secret))
	}
	level := slog.LevelInfo
	if cause == "platform" || cause == "unknown" {
		level = slog.LevelWarn
	}
	t.p.log.Log(h.conn.Context(), level, "login", attrs...)
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
	attrs := []any{
		"session", s.id, "listener", s.client.Listener, "protocol", s.dialogue.Protocol(), "client", s.client.Addr,
		"login", s.login, "agency", s.d.Agency, "epoch", s.d.Epoch, "platform", s.d.Platform,
		"to_platform", e.Stats.ToPlatform, "to_client", e.Stats.ToClient, "seconds", lasted.Seconds(), "reason", by,
	}
	if reason != "" {
		attrs = append(attrs, "note", reason)
	}
	if e.Err != nil {
		attrs = append(attrs, "error", e.Err)
	}
	p.log.Info("session ended", attrs...)
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
