package mailstore

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapclient"
)

// wholeBody asks for a message without marking it as read.
func wholeBody() *imap.FetchOptions {
	return &imap.FetchOptions{UID: true, BodySection: []*imap.FetchItemBodySection{{Peek: true}}}
}

// Bodies implements [Session].
func (s *session) Bodies(ctx context.Context, uids []uint32, each func(uid uint32, size int64, body io.Reader) error) error {
	if s.folder == "" {
		return fmt.Errorf("read messages: %w", errNoFolder)
	}
	if err := s.ready(ctx); err != nil {
		return err
	}
	var failed error
	given := make(map[uint32]bool)
	read := func(uids []uint32) (bare []uint32, err error) {
		err = s.guarded(ctx, 0, func() error {
			return s.fetch(uidSet(uids), wholeBody(), func(msg *imapclient.FetchMessageData) error {
				uid, literal := bodyOf(msg)
				switch {
				case uid == 0 || given[uid]:
					return nil
				case literal == nil:
					bare = append(bare, uid)
					return nil
				}
				given[uid] = true
				s.g.allow(literal.Size())
				body := &stream{r: literal, left: literal.Size()}
				failed = each(uid, literal.Size(), body)
				if failed == nil && body.err != nil {
					failed = body.err
				}
				return failed
			})
		})
		return bare, err
	}
	bare, err := read(uids)
	if err == nil && len(bare) > 0 {
		// New flags that were told in between may have been taken for the answer: see fetchList.
		_, err = read(bare)
	}
	if failed != nil && !errors.Is(failed, errCutOff) {
		s.end(fmt.Errorf("read messages: given up: %w", failed))
		return failed
	}
	if err = s.kind(err); err != nil {
		if over(err) {
			s.end(err)
		}
		return fmt.Errorf("read messages in mailbox %s on %s: %w", s.mailbox, s.p.o.Platform, err)
	}
	return nil
}

// bodyOf returns a message's UID and its bytes; nil: there are none.
func bodyOf(msg *imapclient.FetchMessageData) (uint32, imap.LiteralReader) {
	var uid uint32
	for item := msg.Next(); item != nil; item = msg.Next() {
		switch item := item.(type) {
		case imapclient.FetchItemDataUID:
			uid = uint32(item.UID)
		case imapclient.FetchItemDataBodySection:
			return uid, item.Literal
		}
	}
	return uid, nil
}

// errCutOff is what a body ends with that the connection's end cut.
var errCutOff = errors.New("message ends early")

// stream is a literal that knows its end.
type stream struct {
	r    io.Reader
	left int64
	err  error // what it ended with before its end
}

// Read implements io.Reader.
func (b *stream) Read(p []byte) (int, error) {
	n, err := b.r.Read(p)
	b.left -= int64(n)
	if err != nil && b.left > 0 {
		b.err = fmt.Errorf("%w, %d bytes short: %w", errCutOff, b.left, err)
		return n, b.err
	}
	return n, err
}
