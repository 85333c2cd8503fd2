package queue

import (
	"context"
	"fmt"

	"mailcutover/mail"
	"mailcutover/spool"
)

// FromSpool makes a Store of a spool.
func FromSpool(s *spool.Store) Store { return stored{s} }

type stored struct{ *spool.Store }

func (s stored) Open(id mail.TransactionID) (Body, error) {
	b, err := s.Store.Open(id)
	if err != nil {
		return nil, err
	}
	return b, nil
}

func (s stored) Put(ctx context.Context, env spool.Envelope, rcpts []spool.Recipient, content []byte) error {
	in, err := s.Begin(env)
	if err == nil {
		defer in.Discard()
		if _, err = in.Write(content); err == nil {
			err = in.Commit(ctx, rcpts)
		}
	}
	if err != nil {
		return fmt.Errorf("put notice %s into the spool: %w", env.Transaction, err)
	}
	return nil
}
