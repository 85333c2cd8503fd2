package main

import (
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"mailcutover/admin"
)

// timeForms are how people write a time, in the zone of the machine if they name none.
var timeForms = []string{time.RFC3339, "2006-01-02 15:04:05", "2006-01-02 15:04", "2006-01-02T15:04:05", "2006-01-02T15:04", "2006-01-02"}

// moment is a flag for a time: one of timeForms, or how long ago it is, such as 90m or 3d.
type moment struct{ time.Time }

// String implements pflag.Value.
func (m *moment) String() string {
	if m.IsZero() {
		return ""
	}
	return m.Format(time.RFC3339)
}

// Type implements pflag.Value.
func (m *moment) Type() string { return "time" }

// Set implements pflag.Value.
func (m *moment) Set(text string) error {
	for _, form := range timeForms {
		if t, err := time.ParseInLocation(form, text, time.Local); err == nil {
			m.Time = t
			return nil
		}
	}
	if n, ok := strings.CutSuffix(text, "d"); ok {
		if days, err := strconv.ParseUint(n, 10, 16); err == nil {
			m.Time = time.Now().AddDate(0, 0, -int(days))
			return nil
		}
	}
	if d, err := time.ParseDuration(text); err == nil && d >= 0 {
		m.Time = time.Now().Add(-d)
		return nil
	}
	return errors.New("want a time such as 2026-03-01 08:30, or how long ago, such as 90m or 3d")
}

func addSpan(cmd *cobra.Command, since, until *moment) {
	cmd.Flags().Var(since, "since", "from then on: a time, or how long ago, such as 90m or 3d")
	cmd.Flags().Var(until, "until", "before then (default: now)")
}

func newTraceCommand(c *connection) *cobra.Command {
	var q admin.TraceQuery
	var since, until moment
	var in bool
	var reason string
	cmd := c.command(&cobra.Command{
		Use: "trace", Short: "The way of messages through all nodes, without content", Args: cobra.NoArgs,
		Long: "The way of messages through all nodes, by time: when they came, what was handed to which\n" +
			"platform, what it answered, what became of them else, which recipients may have them\n" +
			"twice, and what is still in the spool. Messages that lie in no spool are known as long\n" +
			"as the ledger goes back.\n\n" +
			"With --locate it is looked for in all folders of its recipients' mailboxes, over IMAP and\n" +
			"by headers only: a filter may have filed it, or its reader deleted it. Whose mailbox was\n" +
			"looked into, by whom and why, stands in the audit log.",
		Example: "  mailcutover trace --rcpt dora@health.example --since 3d\n" +
			"  mailcutover trace --message-id 4711@out.example --rcpt dora@health.example --locate --reason 'ticket 815'",
	}, func(cmd *cobra.Command, client *admin.Client, _ []string) error {
		if err := oneName(cmd, &q, in); err != nil {
			return err
		}
		if in {
			return locate(cmd, c, client, admin.LocateQuery{Transaction: q.Transaction, MessageID: q.MessageID, Recipient: q.Recipient, Reason: reason})
		}
		q.Since, q.Until = since.Time, until.Time
		found, err := client.Trace(cmd.Context(), q)
		if err != nil {
			return err
		}
		warn(cmd, found.Notes, found.More, len(found.Messages), "messages")
		return c.show(cmd, found, func(w io.Writer) {
			if len(found.Messages) == 0 {
				fmt.Fprintln(w, "nothing is known of such a message")
			}
			for i, t := range found.Messages {
				if i > 0 {
					fmt.Fprintln(w)
				}
				printTrace(w, t)
			}
		})
	})
	cmd.Flags().StringVar(&q.Transaction, "transaction", "", "this message, by the id in our Received line and the logs")
	cmd.Flags().StringVar(&q.MessageID, "message-id", "", "messages with this Message-ID")
	cmd.Flags().StringVar(&q.From, "from", "", "messages of this envelope sender; <> for the null sender")
	cmd.Flags().StringVar(&q.Recipient, "rcpt", "", "messages for this address")
	cmd.MarkFlagsOneRequired("transaction", "message-id", "from", "rcpt")
	addSpan(cmd, &since, &until)
	cmd.Flags().BoolVar(&in, "locate", false, "in which folders of mailboxes it lies; --rcpt then says whose, beside --transaction or --message-id")
	cmd.Flags().StringVar(&reason, "reason", "", "why a mailbox is looked into, for the audit log (with --locate)")
	cmd.MarkFlagsRequiredTogether("locate", "reason")
	cmd.Flags().IntVar(&q.Limit, "limit", 20, "at most so many messages, the newest, up to 1000")
	return cmd
}

// oneName refuses a search by several names, and one for a mailbox without its message.
func oneName(cmd *cobra.Command, q *admin.TraceQuery, locate bool) error {
	var named []string
	for _, f := range [][2]string{{"--transaction", q.Transaction}, {"--message-id", q.MessageID}, {"--from", q.From}, {"--rcpt", q.Recipient}} {
		if f[1] != "" && (!locate || f[0] != "--rcpt") {
			named = append(named, f[0])
		}
	}
	switch {
	case len(named) > 1:
		return &usageError{err: fmt.Errorf("%s: give one of them", strings.Join(named, " and ")), command: cmd.CommandPath()}
	case locate && q.Transaction == "" && q.MessageID == "":
		return &usageError{err: errors.New("--locate: name the message by --transaction or --message-id"), command: cmd.CommandPath()}
	}
	return nil
}

// locate prints where a message lies.
func locate(cmd *cobra.Command, c *connection, client *admin.Client, q admin.LocateQuery) error {
	found, err := client.Locate(cmd.Context(), q)
	if err != nil {
		return err
	}
	warn(cmd, found.Notes, false, 0, "")
	return c.show(cmd, found, func(w io.Writer) {
		for i, box := range found.Mailboxes {
			if i > 0 {
				fmt.Fprintln(w)
			}
			pairs(w, [2]string{"recipient", box.Recipient}, [2]string{"mailbox", box.Mailbox}, [2]string{"agency", box.Agency})
			var rows [][]string
			for _, at := range box.Platforms {
				rows = append(rows, placesOn(&at)...)
			}
			table(w, []string{"PLATFORM", "WHERE", "ARRIVED", "NOTE"}, rows)
		}
	})
}

// placesOn are the lines of one platform.
func placesOn(at *admin.LocatedAt) (rows [][]string) {
	platform := at.Platform
	if at.Holds {
		platform += " (holds the mailbox)"
	}
	for _, p := range at.Places {
		where, note := p.Where, "another copy: not of this transaction, or without our Received line"
		if p.Folder != "" {
			where += ": " + p.Folder
		}
		if p.Ours {
			note = "came by us"
		}
		if p.Deleted {
			note += "; marked for deletion"
		}
		rows = append(rows, []string{platform, where, local(&p.Arrived), note})
	}
	if at.Error != "" {
		return append(rows, []string{platform, "not known", "-", at.Error})
	}
	var note []string
	if at.Skipped > 0 {
		note = append(note, fmt.Sprintf("%d folders could not be opened", at.Skipped))
	}
	if at.Cut {
		note = append(note, "not all messages could be compared")
	}
	switch {
	case len(rows) == 0:
		rows = append(rows, []string{platform, fmt.Sprintf("in none of %d folders", at.Folders), "-", strings.Join(note, "; ")})
	case len(note) > 0:
		rows = append(rows, []string{platform, "elsewhere: not known", "-", strings.Join(note, "; ")})
	}
	return rows
}

// warn says on standard error what may be missing.
func warn(cmd *cobra.Command, notes []string, more bool, n int, noun string) {
	for _, note := range notes {
		fmt.Fprintf(cmd.ErrOrStderr(), "warning: %s\n", oneLine(note))
	}
	if more {
		fmt.Fprintf(cmd.ErrOrStderr(), "warning: there is more; these are the newest %d %s (--limit, --since, --until)\n", n, noun)
	}
}

func printTrace(w io.Writer, t admin.Trace) {
	pairs(w, [2]string{"transaction", t.Transaction}, [2]string{"node", t.Node}, [2]string{"from", "<" + t.From + ">"}, [2]string{"message-id", t.MessageID}, [2]string{"size", size(t.Size)})
	var rows [][]string
	for _, e := range t.Events {
		answer := e.Answer
		if e.Code != 0 {
			answer = fmt.Sprintf("%d %s", e.Code, e.Answer)
		}
		rows = append(rows, []string{local(&e.Time), e.Text, strings.Join(e.Recipients, " "), answer})
	}
	if t.Spool != nil {
		for _, r := range t.Spool.Recipients {
			text := "in the spool now: " + r.State
			if r.Next != nil {
				text += ", tried again " + local(r.Next)
			}
			rows = append(rows, []string{"now", text, r.Address, r.Reason})
		}
	}
	table(w, []string{"TIME", "WHAT", "RECIPIENTS", "ANSWER OR REASON"}, rows)
	for _, r := range t.Twice {
		fmt.Fprintf(w, "possible duplicate: %s\n", printable(r))
	}
}
