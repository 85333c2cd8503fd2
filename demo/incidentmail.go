package demo

import (
	"bytes"
	"context"
	"fmt"

	gosmtp "github.com/emersion/go-smtp"

	"mailcutover/admin"
	"mailcutover/rollback/operation"
)

// stray is a message that lies in another mailbox than it was sent to.
type stray struct{ of, in *mailbox }

// deliver starts a node with this mapping, cuts all agencies over, sends every mailbox one
// message, and returns those that lie in another's. It notes a message that is nowhere, or
// somewhere twice, as a wrong number.
func (i *incident) deliver(ctx context.Context, pairs []pairing) ([]stray, error) {
	s, err := raise(ctx, Options{Out: i.Out, Log: i.Log}, i.all)
	if err != nil {
		return nil, err
	}
	defer s.close()
	var file bytes.Buffer
	if err := writePairs(&file, pairs); err != nil {
		return nil, fmt.Errorf("write the list of mailboxes: %w", err)
	}
	if err := s.load(ctx, &file); err != nil {
		return nil, err
	}
	for _, a := range agencies {
		if err := s.cutOver(ctx, a.id); err != nil {
			return nil, err
		}
	}
	if err := s.one(ctx); err != nil {
		return nil, err
	}
	taken, refused := len(s.mx.taken), s.mx.refused
	i.must(taken == len(i.all) && len(refused) == 0, "%d of %d messages were taken; refused: %q", taken, len(i.all), refused)
	owner := make(map[string]*mailbox, len(i.all))
	for n := range i.all {
		owner[i.all[n].at[target]] = &i.all[n]
	}
	stored := s.platforms[target].deliveries()
	i.must(len(stored) == len(i.all) && s.platforms[source].count() == 0, "%d messages lie on %s and %d on %s, want %d and 0",
		len(stored), target, s.platforms[source].count(), source, len(i.all))
	var strays []stray
	copies := make(map[int]int, len(stored))
	for _, d := range stored {
		copies[d.id]++
		of, in := &i.all[d.id-1], owner[d.rcpt]
		if in == nil {
			return nil, fmt.Errorf("message %d lies under %q, which is nobody's", d.id, d.rcpt)
		}
		if of != in {
			strays = append(strays, stray{of, in})
		}
	}
	i.must(len(copies) == len(i.all), "%d different messages are there, want %d", len(copies), len(i.all))
	return strays, nil
}

// cutOver arms an agency and cuts it over, as an operator would.
func (s *stage) cutOver(ctx context.Context, agency string) error {
	a, err := s.api.Agency(ctx, agency)
	if err == nil {
		a, err = s.api.Arm(ctx, agency, a.Epoch, "demo")
	}
	var op admin.Operation
	if err == nil {
		op, err = s.api.Start(ctx, operation.Cutover, agency, a.Epoch, "demo")
	}
	if err == nil {
		op, err = s.api.Watch(ctx, op.ID, func(admin.Operation) {})
	}
	if err == nil && op.Step != string(operation.StepDone) {
		err = fmt.Errorf("it ended at step %s: %s", op.Step, op.Error)
	}
	if err != nil {
		return fmt.Errorf("cutover of agency %s: %w", agency, err)
	}
	return nil
}

// one sends one message to each mailbox; the message's number is the mailbox's, from 1.
// What is put off is sent again, until it is taken, refused, or drainTime is over.
func (s *stage) one(ctx context.Context) error {
	client, err := s.mx.dial(ctx)
	if err != nil {
		return fmt.Errorf("connect to the node: %w", err)
	}
	defer func() { _ = client.Close() }()
	send := func(j job) error {
		if err := s.mx.send(client, j); err != nil {
			_ = client.Close()
			var again *gosmtp.Client
			if again, err = s.mx.dial(ctx); err != nil {
				return fmt.Errorf("connect to the node: %w", err)
			}
			client = again
		}
		return nil
	}
	for n := range s.all {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("demo ended early: %w", context.Cause(ctx))
		}
		if err := send(job{id: n + 1, rcpts: []*mailbox{&s.all[n]}}); err != nil {
			return err
		}
	}
	var failed error
	err = s.until(ctx, func() bool {
		for failed == nil {
			j, ok := s.mx.due()
			if !ok {
				break
			}
			failed = send(j)
		}
		return failed != nil || s.mx.progress().waiting == 0 && s.node.Spool().Messages == 0
	})
	if failed != nil {
		return failed
	}
	return err
}
