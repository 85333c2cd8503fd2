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

// newVerifyCommand returns the commands that compare mailboxes and work through findings.
func newVerifyCommand(c *connection) *cobra.Command {
	var v admin.NewVerification
	var watch bool
	cmd := c.command(&cobra.Command{
		Use: "verify", Short: "Compare the mailboxes of both platforms, and find what lies in another mailbox; findings, mark, status, mailboxes", Args: cobra.NoArgs,
		Long:    "Compare the mailboxes of both platforms, a sample of each agency or all, and find what lies in\nanother mailbox than its own. Nothing on either platform is changed. The node does it; it begins\none by itself after each cutover.",
		Example: "  mailcutover verify --agency health --reason \"before wave 2\" --watch\n  mailcutover verify --all --full --reason \"a list was wrong\"",
	}, func(cmd *cobra.Command, client *admin.Client, _ []string) error {
		begun, err := client.BeginVerify(cmd.Context(), v)
		if err != nil {
			return err
		}
		if watch {
			return c.watchVerify(cmd, client, begun)
		}
		return c.show(cmd, begun, func(w io.Writer) {
			fmt.Fprintf(w, "node %s compares mailboxes of %s: run %s\n", begun.Node, strings.Join(begun.Agencies, ", "), begun.Run)
			fmt.Fprintf(w, "next: mailcutover verify status\nundo: mailcutover verify stop --agency %s --reason ...; nothing was changed\n", begun.Agencies[0])
		})
	})
	cmd.Flags().StringSliceVar(&v.Agencies, "agency", nil, "agency whose mailboxes are compared; several are compared together")
	cmd.Flags().BoolVar(&v.All, "all", false, "all agencies instead")
	cmd.Flags().BoolVar(&v.Full, "full", false, "all mailboxes instead of a sample")
	cmd.Flags().IntVar(&v.Sample, "sample", 0, "mailboxes of each agency (default: as configured)")
	cmd.Flags().BoolVar(&watch, "watch", false, "show its progress until it is done; exit code 1 if crossed mailboxes are open then")
	addReason(cmd, &v.Reason)
	cmd.AddCommand(newVerifyStatus(c), newVerifyStop(c), newVerifyFindings(c), newVerifyMark(c), newVerifyMessages(c), newVerifyMailboxes(c))
	return cmd
}

// verifyPause is the time between two looks at a comparison.
const verifyPause = time.Second

// watchVerify shows a comparison's progress until it is over, and then what it found.
func (c *connection) watchVerify(cmd *cobra.Command, client *admin.Client, begun admin.VerificationBegun) error {
	p := &progress{out: cmd.ErrOrStderr(), live: isTerminal(cmd.ErrOrStderr())}
	for {
		all, err := client.Verifications(cmd.Context(), "")
		if err != nil {
			p.end()
			return withHint(err, "the comparison goes on at the node: mailcutover verify status")
		}
		of := make(map[string]bool)
		for _, id := range begun.Agencies {
			of[id] = true
		}
		under := ""
		var done []admin.Verification
		for _, a := range all.Agencies {
			if at := a.Running; at != nil && at.Run == begun.Run {
				under = fmt.Sprintf("%d of %d mailboxes, %d messages", at.Done, at.Mailboxes, at.Messages)
			} else if of[a.Agency] {
				done = append(done, a)
			}
		}
		if under == "" {
			p.end()
			return c.concludeVerify(cmd, begun.Run, done)
		}
		p.line(under)
		select {
		case <-time.After(verifyPause):
		case <-cmd.Context().Done():
			p.end()
			return withHint(cmd.Context().Err(), "the comparison goes on at the node: mailcutover verify status")
		}
	}
}

// concludeVerify prints what a comparison found. Its error says that crossed mailboxes are
// open, or that it didn't come to its end.
func (c *connection) concludeVerify(cmd *cobra.Command, run string, done []admin.Verification) error {
	if err := c.show(cmd, done, func(w io.Writer) { printVerifications(w, done) }); err != nil {
		return err
	}
	crossed, unfinished := 0, ""
	for i := range done {
		crossed += done[i].Open.Crossed + done[i].Open.Clash
		if last := done[i].Last; last == nil || last.Run != run {
			unfinished = done[i].Trouble
		}
	}
	switch {
	case unfinished != "":
		return fmt.Errorf("the comparison did not come to its end: %s", unfinished)
	case crossed > 0:
		return withHint(fmt.Errorf("%d findings say that mailboxes hold others' content", crossed), "mailcutover verify findings; docs/operations/verify.md says what to do in the first ten minutes")
	}
	return nil
}

func newVerifyStatus(c *connection) *cobra.Command {
	var agency string
	cmd := c.command(&cobra.Command{Use: "status", Short: "What is being compared, and what the last comparisons found", Args: cobra.NoArgs},
		func(cmd *cobra.Command, client *admin.Client, _ []string) error {
			all, err := client.Verifications(cmd.Context(), agency)
			if err != nil {
				return err
			}
			return c.show(cmd, all, func(w io.Writer) { printVerifications(w, all.Agencies) })
		})
	cmd.Flags().StringVar(&agency, "agency", "", "only this agency")
	return cmd
}

func printVerifications(w io.Writer, all []admin.Verification) {
	var rows [][]string
	for _, a := range all {
		row := []string{a.Agency, "never", "", "", "", "", strconv.Itoa(a.Open.Crossed + a.Open.Clash), strconv.Itoa(a.Open.Possible), strconv.Itoa(a.Open.Missing)}
		if o := a.Last; o != nil {
			row[1], row[2] = local(&o.Ended), o.Mode
			row[3] = fmt.Sprintf("%d of %d", o.Compared, o.Mailboxes)
			row[4], row[5] = strconv.Itoa(o.Differ), strconv.Itoa(o.Failed)
		}
		rows = append(rows, row)
	}
	table(w, []string{"AGENCY", "COMPARED", "MODE", "MAILBOXES", "DIFFER", "UNREAD", "CROSSED", "POSSIBLE", "MISSING"}, rows)
	for _, a := range all {
		if at := a.Running; at != nil {
			fmt.Fprintf(w, "%s: being compared by %s since %s (%s, %s): %d of %d mailboxes, %d messages\n", a.Agency, at.Node, local(&at.Began), at.Mode, printable(at.Person), at.Done, at.Mailboxes, at.Messages)
		}
		if a.Trouble != "" {
			fmt.Fprintf(w, "%s: the attempt at %s did not come to its end: %s\n", a.Agency, local(a.Tried), oneLine(a.Trouble))
		}
		if a.Last != nil {
			for _, note := range a.Last.Notes {
				fmt.Fprintf(w, "%s: %s\n", a.Agency, oneLine(note))
			}
		}
	}
}

func newVerifyStop(c *connection) *cobra.Command {
	var agency, reason string
	cmd := c.command(&cobra.Command{Use: "stop", Short: "Stop the comparison of an agency that the node is making", Args: cobra.NoArgs},
		func(cmd *cobra.Command, client *admin.Client, _ []string) error {
			all, err := client.StopVerify(cmd.Context(), agency, reason)
			if err != nil {
				return err
			}
			return c.show(cmd, all, func(w io.Writer) {
				fmt.Fprintf(w, "the comparison of agency %s is stopped\nundo: mailcutover verify --agency %[1]s --reason ...\n", agency)
			})
		})
	cmd.Flags().StringVar(&agency, "agency", "", "agency (required)")
	require(cmd, "agency")
	addReason(cmd, &reason)
	return cmd
}

func newVerifyFindings(c *connection) *cobra.Command {
	var agency, state, kind string
	var all bool
	cmd := c.command(&cobra.Command{
		Use: "findings", Short: "What comparing mailboxes found, to be worked through: the open ones", Args: cobra.NoArgs,
		Example: "  mailcutover verify findings --agency health\n  mailcutover verify findings --closed --json",
	}, func(cmd *cobra.Command, client *admin.Client, _ []string) error {
		if state == "" && !all {
			state = "open"
		}
		found, err := client.Findings(cmd.Context(), agency, state, kind)
		if err != nil {
			return err
		}
		return c.show(cmd, found, func(w io.Writer) { printFindings(w, found.Findings) })
	})
	cmd.Flags().StringVar(&agency, "agency", "", "only of this agency")
	cmd.Flags().StringVar(&state, "state", "", "found, removed, confirmed or dismissed")
	cmd.Flags().StringVar(&kind, "kind", "", "crossed, possible, foreign, missing or clash")
	cmd.Flags().BoolVar(&all, "closed", false, "those that are confirmed or dismissed too")
	return cmd
}

func printFindings(w io.Writer, all []admin.Finding) {
	if len(all) == 0 {
		fmt.Fprintln(w, "no findings")
		return
	}
	var rows [][]string
	for _, f := range all {
		owner := f.OwnerAddress
		if f.OwnerAgency != "" && f.OwnerAgency != f.Agency {
			owner += " (" + f.OwnerAgency + ")"
		}
		state := f.State
		if f.Again > 0 {
			state += fmt.Sprintf(", again %d", f.Again)
		}
		rows = append(rows, []string{f.ID, f.Kind, state, f.Agency, f.Address, owner, fmt.Sprintf("%d of %d", f.Messages, f.Of), strconv.Itoa(f.Sure), strings.Join(f.Folders, ", ")})
	}
	table(w, []string{"FINDING", "KIND", "STATE", "AGENCY", "LIES IN", "LIKELY OF", "MESSAGES", "SURE", "FOLDERS"}, rows)
	for _, f := range all {
		if f.Person != "" && f.State != "found" {
			fmt.Fprintf(w, "%s: %s, %s: %s\n", f.ID, f.State, printable(f.Person), oneLine(f.Reason))
		}
	}
}

func newVerifyMark(c *connection) *cobra.Command {
	var m admin.FindingMark
	cmd := c.command(&cobra.Command{
		Use: "mark STATE [FINDING...]", Short: "Say that findings are removed (the program looks again), dismissed, or found after all", Args: cobra.MinimumNArgs(1),
		Example: "  mailcutover verify mark removed 22edee9495 f5f57bb0b3 --reason \"moved back\"\n  mailcutover verify mark dismissed 22edee9495 --reason \"his delegate\"",
	}, func(cmd *cobra.Command, client *admin.Client, args []string) error {
		m.State, m.Findings = args[0], args[1:]
		if (len(m.Findings) > 0) == (m.Agency != "") {
			return &usageError{command: cmd.CommandPath(), err: errors.New("name findings, or --agency for all of it that are in state found")}
		}
		out, err := client.MarkFindings(cmd.Context(), m)
		if err != nil {
			return err
		}
		return c.show(cmd, out, func(w io.Writer) {
			fmt.Fprintf(w, "%d findings are marked as %s\n", len(out.Findings), m.State)
			if m.State == "removed" {
				fmt.Fprintln(w, "next: the program looks again by itself: mailcutover verify findings --closed")
			}
			fmt.Fprintln(w, "undo: mailcutover verify mark found FINDING... --reason ...")
		})
	})
	cmd.Flags().StringVar(&m.Agency, "agency", "", "all findings of this agency that are in state found")
	addReason(cmd, &m.Reason)
	return cmd
}

func newVerifyMessages(c *connection) *cobra.Command {
	return c.command(&cobra.Command{Use: "messages FINDING", Short: "The messages that a finding is about: folder and UID on the target", Args: cobra.ExactArgs(1)},
		func(cmd *cobra.Command, client *admin.Client, args []string) error {
			out, err := client.FindingMessages(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			return c.show(cmd, out, func(w io.Writer) {
				var rows [][]string
				for _, m := range out.Messages {
					rows = append(rows, []string{string(m.Address), m.Folder, strconv.FormatUint(uint64(m.UID), 10), m.Key})
				}
				table(w, []string{"LIES IN", "FOLDER", "UID", "KEY"}, rows)
				if out.More {
					fmt.Fprintln(w, "there are more")
				}
			})
		})
}

func newVerifyMailboxes(c *connection) *cobra.Command {
	var agency, address string
	var all bool
	cmd := c.command(&cobra.Command{
		Use: "mailboxes", Short: "The numbers of each mailbox by the last comparison: of those that differ", Args: cobra.NoArgs,
	}, func(cmd *cobra.Command, client *admin.Client, _ []string) error {
		out, err := client.Comparisons(cmd.Context(), agency, !all && address == "", address)
		if err != nil {
			return err
		}
		return c.show(cmd, out, func(w io.Writer) { printComparisons(w, &out, address != "") })
	})
	cmd.Flags().StringVar(&agency, "agency", "", "agency (required)")
	cmd.Flags().StringVar(&address, "mailbox", "", "only this mailbox, by its primary address, folder by folder")
	cmd.Flags().BoolVar(&all, "same", false, "those that don't differ too")
	require(cmd, "agency")
	return cmd
}

func printComparisons(w io.Writer, out *admin.MailboxComparisons, folders bool) {
	number := func(n int64) string { return strconv.FormatInt(n, 10) }
	var rows [][]string
	for i := range out.Mailboxes {
		m := &out.Mailboxes[i]
		n := &m.Counts
		rows = append(rows, []string{string(m.Address), "", number(n.Source), number(n.Target), number(n.Matched), number(n.Elsewhere), number(n.Missing), number(n.Extra), number(n.New), number(n.Copies), number(n.Dates), number(n.Sizes), number(n.Clashes), m.Error})
		for j := range m.Folders {
			f := &m.Folders[j]
			if !folders {
				break
			}
			name := f.Source
			if f.Target != "" && f.Target != name {
				name = strings.Trim(name+" / "+f.Target, " /")
			}
			n := &f.Counts
			rows = append(rows, []string{"", name, number(n.Source), number(n.Target), number(n.Matched), number(n.Elsewhere), number(n.Missing), number(n.Extra), number(n.New), number(n.Copies), number(n.Dates), number(n.Sizes), number(n.Clashes), ""})
		}
	}
	if len(rows) == 0 {
		fmt.Fprintln(w, "no mailbox differs")
		return
	}
	table(w, []string{"MAILBOX", "FOLDER", "SOURCE", "TARGET", "MATCHED", "ELSEWHERE", "MISSING", "EXTRA", "NEW", "COPIES", "DATES", "SIZES", "CLASHES", "ERROR"}, rows)
	if out.More {
		fmt.Fprintln(w, "there are more")
	}
}
