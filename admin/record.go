package admin

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"mailcutover/audit"
	"mailcutover/routing"
	"mailcutover/routing/table"
)

// Audit is the node's audit log; *audit.Log is one.
type Audit interface {
	Append(audit.Entry) (audit.Head, error)
	Head() audit.Head
	Export(w io.Writer) (audit.Head, error)
	Damage() string
}

// record writes down what is about to happen. With an error it must not happen. Who and by
// which call is added; What is the call's name unless it is set.
func (s *Server) record(ctx context.Context, e audit.Entry) error {
	req := requestOf(ctx)
	e.Person, e.Token, e.Roles, e.Request = req.caller.person, req.caller.token, texts(req.caller.roles), req.id
	e.What = cmp.Or(e.What, req.operation)
	head, err := s.Audit.Append(e)
	if err != nil {
		s.Logger.ErrorContext(ctx, "audit record can't be written: the call is refused", "request", req.id, "what", e.What, "subject", e.Subject, "error", err)
		return err
	}
	req.recorded = head.Number
	return nil
}

// recordFailure writes that what was recorded last did not happen, or not as a whole.
func (s *Server) recordFailure(ctx context.Context, cause error) {
	req := requestOf(ctx)
	if req.recorded == 0 || errors.Is(cause, audit.ErrUnwritten) {
		return
	}
	of := req.recorded
	text := cause.Error()
	if p, ok := errors.AsType[*Problem](cause); ok {
		text = fmt.Sprintf("%d: %s", p.Status, p.Detail)
	}
	if err := s.record(ctx, audit.Entry{Subject: req.operation, Of: of, Error: clip(text)}); err != nil {
		s.Logger.ErrorContext(ctx, "the failure of a call is not in the audit log", "request", req.id, "record", of, "error", err)
	}
	req.recorded = 0
}

// clip bounds a text in the audit log.
func clip(s string) string {
	const most = 2000
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "..."
}

// recordChange is record for a change of the table: before and after are the records that
// it changes.
func (s *Server) recordChange(ctx context.Context, state *routing.State, c *table.Change, e audit.Entry) error {
	var subject, before, after []string
	e.Reason = c.Reason
	for i := range c.Agencies {
		a := &c.Agencies[i]
		subject = append(subject, "agency "+string(a.ID))
		if was, ok := state.Agency(a.ID); ok {
			before = append(before, agencyText(&was))
			e.Epoch = was.Epoch.String()
		}
		after = append(after, agencyText(a))
		e.Digests = append(e.Digests, a.Mapping.String())
	}
	for _, d := range c.Domains {
		subject = append(subject, "domain "+d.Name)
	}
	for _, f := range c.Fixed {
		subject = append(subject, "fixed address "+string(f.Address))
	}
	for _, f := range c.Freezes {
		subject = append(subject, "freeze of "+cmp.Or(string(f.Agency), "all agencies"))
	}
	if e.Subject == "" {
		e.Subject = listed(subject)
	}
	e.Before, e.After = cmp.Or(e.Before, listed(before)), cmp.Or(e.After, clip(strings.TrimSuffix(c.What+": "+listed(after), ": ")))
	if len(e.Digests) > maxListed {
		e.Digests = append(e.Digests[:maxListed:maxListed], fmt.Sprintf("and %d more", len(e.Digests)-maxListed))
	}
	return s.record(ctx, e)
}

// maxListed is how many records of one change the audit log names.
const maxListed = 20

func listed(all []string) string {
	if len(all) > maxListed {
		return clip(strings.Join(all[:maxListed], "; ")) + fmt.Sprintf("; and %d more", len(all)-maxListed)
	}
	return clip(strings.Join(all, "; "))
}

// agencyText is what the audit log says of an agency's record.
func agencyText(a *routing.Agency) string {
	words := []string{string(a.ID), "phase=" + a.Phase.String(), "platform=" + string(a.Platform()), "epoch=" + a.Epoch.String(), "leased=" + a.Tightness.String()}
	for _, flag := range []struct {
		set  bool
		word string
	}{
		{!a.Published, "unpublished"}, {a.Locked, "locked"}, {a.Finalised, "finalised"},
		{a.Operation != "", "operation=" + string(a.Operation)}, {a.Unconfirmed != "", "unconfirmed=" + string(a.Unconfirmed)},
	} {
		if flag.set {
			words = append(words, flag.word)
		}
	}
	return strings.Join(append(words, "mapping="+a.Mapping.String()[:12]), " ")
}
