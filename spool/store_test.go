package spool

import (
	"errors"
	"fmt"
	"io"
	"reflect"
	"strings"
	"testing"
	"time"

	gosmtp "github.com/emersion/go-smtp"

	"mailcutover/internal/durable"
	"mailcutover/internal/durable/memdisk"
	"mailcutover/mail"
	"mailcutover/routing"
)

func path(t testing.TB, s string) mail.Path {
	t.Helper()
	p, err := mail.ParsePath(s, true)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func envelope(t testing.TB) Envelope {
	auth := "someone"
	return Envelope{
		Transaction: mail.NewTransactionID(), Time: time.Unix(1_700_000_000, 42).UTC(),
		Client:    mail.Client{Session: "s1", Listener: "mx", Origin: mail.OriginOutside, Helo: "relay.example", With: "ESMTPS"},
		From:      path(t, "sender@out.example"),
		Options:   gosmtp.MailOptions{Body: gosmtp.Body8BitMIME, Size: 99, UTF8: true, Return: gosmtp.DSNReturnHeaders, EnvelopeID: "a+2Bb", Auth: &auth},
		MessageID: "<1@out.example>",
	}
}

func rcpt(name string, agency routing.AgencyID, state State) Recipient {
	r := Recipient{Address: routing.Address(name + "@in.example"), Agency: agency, State: state, Reason: "agency closed"}
	copy(r.Mailbox[:], "mailbox "+name)
	return r
}

func openStore(t testing.TB, o Options) *Store {
	t.Helper()
	if o.Node == "" {
		o.Node = "node1"
	}
	if o.Dir == "" {
		o.Dir = "/spool"
	}
	s, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func accept(t testing.TB, s *Store, body string, rcpts ...Recipient) mail.TransactionID {
	t.Helper()
	env := envelope(t)
	in, err := s.Begin(env)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Discard()
	if _, err := io.WriteString(in, body); err != nil {
		t.Fatal(err)
	}
	if err := in.Commit(t.Context(), rcpts); err != nil {
		t.Fatal(err)
	}
	return env.Transaction
}

func readBody(t testing.TB, s *Store, id mail.TransactionID) (string, error) {
	t.Helper()
	b, err := s.Open(id)
	if err != nil {
		return "", err
	}
	defer b.Close()
	text, err := io.ReadAll(b)
	if err == nil {
		err = b.Verify()
	}
	return string(text), err
}

// A message is there as it was given, before and after a restart, whichever way its body
// is kept.
func TestAMessageStays(t *testing.T) {
	for _, large := range []bool{false, true} {
		for _, disk := range []durable.Disk{durable.OS{}, memdisk.New()} {
			o := Options{Disk: disk}
			if disk == (durable.OS{}) {
				o.Dir = t.TempDir()
			}
			s := openStore(t, o)
			body := "Received: x\r\n\r\nbody\r\n"
			if large {
				body += strings.Repeat("0123456789\r\n", 20_000)
			}
			priority := 3
			a := rcpt("anna", "health", StateHeld)
			a.Options = gosmtp.RcptOptions{Notify: []gosmtp.DSNNotify{gosmtp.DSNNotifyDelayed}, OriginalRecipientType: gosmtp.DSNAddressTypeRFC822, OriginalRecipient: "q+2B@x", MTPriority: &priority,
				DeliverBy: &gosmtp.DeliverByOptions{Time: time.Hour, Mode: gosmtp.DeliverByNotify, Trace: true}, RequireRecipientValidSince: time.Unix(5, 0).UTC()}
			a.To = path(t, `"anna x"@in.example`)
			b := rcpt("bert", "works", StateWaiting)
			b.Last = Result{Time: time.Unix(6, 0).UTC(), Code: 451, Platform: "ox", Epoch: routing.Epoch{Term: 1, Number: 2}, Attempts: 1, Next: time.Unix(7, 0).UTC(), Cause: CauseUnavailable}
			env := envelope(t)
			in, err := s.Begin(env)
			if err != nil {
				t.Fatal(err)
			}
			io.WriteString(in, body)
			if err := in.Commit(t.Context(), []Recipient{a}); err != nil {
				t.Fatal(err)
			}
			if err := in.Add(t.Context(), []Recipient{b}); err != nil {
				t.Fatal(err)
			}
			in.Discard()
			in.Discard()
			want := &Message{Envelope: env, Sequence: 1, Size: int64(len(body)), Recipients: []Recipient{a, b}}
			check := func(s *Store) {
				t.Helper()
				got, err := s.Get(env.Transaction)
				if err != nil || !reflect.DeepEqual(got, want) {
					t.Errorf("%+v, %v,\nwant %+v", got, err, want)
				}
				if text, err := readBody(t, s, env.Transaction); err != nil || text != body {
					t.Errorf("%d bytes, %v", len(text), err)
				}
				if c, per := s.Counts(); c.Messages != 1 || c.Bytes != int64(len(body)) || c.Of(StateHeld) != 1 || per["works"].Recipients[StateWaiting] != 1 {
					t.Errorf("%+v %+v", c, per)
				}
				if !s.Held(a.Key()) || s.Held(b.Key()) {
					t.Error("held keys are wrong")
				}
			}
			check(s)
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			s = openStore(t, o)
			check(s)
			out := Outcome{Transaction: env.Transaction, Recipient: 1, State: StateWaiting, Reason: "4.2.2 full",
				Result: Result{Time: time.Unix(9, 0).UTC(), Code: 452, Platform: "ox", Epoch: routing.Epoch{Term: 1, Number: 7}, Attempts: 2, Next: time.Unix(99, 0).UTC(), Cause: CauseDoubt}}
			if err := s.Set(out); err != nil {
				t.Fatal(err)
			}
			want.Recipients[1].Reason, want.Recipients[1].Last = out.Reason, out.Result
			check(s)
			s.Close()
			s = openStore(t, o)
			check(s)
			if err := s.Set(Outcome{Transaction: env.Transaction, Recipient: 0, State: StateDelivered}, Outcome{Transaction: env.Transaction, Recipient: 1, State: StateDropped}); err != nil {
				t.Fatal(err)
			}
			if err := s.Set(Outcome{Transaction: env.Transaction, Recipient: 0, State: StateHeld}); !errors.Is(err, ErrUnknown) {
				t.Error(err)
			}
			for range 2 {
				if _, err := s.Get(env.Transaction); !errors.Is(err, ErrUnknown) {
					t.Error(err)
				}
				if st := s.Status(); st.Counts != (Counts{}) || len(st.Opened.Problems) > 0 {
					t.Errorf("%+v", st)
				}
				s.Close()
				s = openStore(t, o)
			}
			if names, err := s.disk.Names(s.path(bodiesDir)); err != nil || len(names) > 0 {
				t.Error(names, err)
			}
			s.Close()
		}
	}
}

func TestEachIsInOrder(t *testing.T) {
	s := openStore(t, Options{Disk: memdisk.New(), SegmentBytes: 4096})
	var want []mail.TransactionID
	for i := range 50 {
		id := accept(t, s, fmt.Sprint("body ", i), rcpt(fmt.Sprint("r", i%3), "health", StateHeld))
		if i%2 == 0 {
			want = append(want, id)
		} else if err := s.Set(Outcome{Transaction: id, State: StateDelivered}); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 {
		var got []mail.TransactionID
		s.Each(Filter{Agency: "health"}, func(e Entry) bool { got = append(got, e.Transaction); return true })
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%v, want %v", got, want)
		}
		s.Close()
		s = openStore(t, Options{Disk: s.disk, SegmentBytes: 4096})
	}
	s.Close()
}
