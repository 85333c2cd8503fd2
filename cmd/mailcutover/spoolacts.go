package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"mailcutover/admin"
	"mailcutover/spool"
)

// newSpoolActs returns hold, release, retry and drop.
func newSpoolActs(c *connection) []*cobra.Command {
	return []*cobra.Command{
		newSpoolAct(c, "hold", "Set mail aside in quarantine, until it is released or dropped"),
		newSpoolAct(c, "release", "Take mail out of quarantine; it goes in its old place"),
		newSpoolAct(c, "retry", "Try waiting mail now, and mailboxes that pause"),
		newSpoolAct(c, "drop", "Remove mail for good; nobody is told"),
	}
}

func newSpoolAct(c *connection, act, short string) *cobra.Command {
	var f admin.SpoolFilter
	var what admin.SpoolAct
	var yes bool
	cmd := c.command(&cobra.Command{
		Use: act, Short: short, Args: cobra.NoArgs,
		Long:    short + ".\n\nName an agency, a mailbox or a message, or say --all; all that is named must fit.",
		Example: "  mailcutover spool " + act + " --agency health --mailbox dora@health.example --reason 'change 4711'",
	}, func(cmd *cobra.Command, client *admin.Client, _ []string) error {
		what.Agency, what.Mailbox, what.State = f.Agency, f.Mailbox, f.State
		if act == "drop" {
			dry := what
			dry.DryRun = true
			would, err := client.SpoolAct(cmd.Context(), act, dry)
			if err != nil {
				return err
			}
			if !yes {
				if err := confirmDrop(cmd.InOrStdin(), cmd.ErrOrStderr(), would.Named); err != nil {
					return err
				}
			}
			what.Expected, what.Digest = &would.Named, would.Digest
			if approval, _ := client.Approval(); approval != "none" {
				what.Expected = nil // the proposal counts itself
				return c.propose(cmd, client, admin.NewProposal{Kind: "drop-spooled", Spool: &what, Reason: what.Reason}, unasked)
			}
		}
		done, err := client.SpoolAct(cmd.Context(), act, what)
		if err != nil {
			return err
		}
		return c.show(cmd, done, func(w io.Writer) { printAct(w, done, what) })
	})
	addFilter(cmd, &f)
	cmd.Flags().StringVar(&what.Message, "message", "", "this message, by its transaction")
	cmd.Flags().BoolVar(&what.All, "all", false, "all mail in the spool")
	addReason(cmd, &what.Reason)
	cmd.MarkFlagsOneRequired("agency", "mailbox", "message", "all")
	for _, narrower := range []string{"agency", "mailbox", "message"} {
		cmd.MarkFlagsMutuallyExclusive("all", narrower)
	}
	if act == "drop" {
		cmd.Flags().BoolVar(&yes, "yes", false, "don't ask")
	}
	return cmd
}

// confirmDrop lets the operator type how many recipients lose their mail.
func confirmDrop(in io.Reader, out io.Writer, n int) error {
	if n == 0 {
		return nil
	}
	fmt.Fprintf(out, "%s will never be delivered to, and nobody is told.\nType the number of recipients to go on: ", count(n, "recipient", "recipients"))
	line, err := bufio.NewReader(in).ReadString('\n')
	if err != nil {
		fmt.Fprintln(out) // nobody ended the prompt's line
	}
	if strings.TrimSpace(line) != strconv.Itoa(n) {
		if err != nil && !errors.Is(err, io.EOF) {
			return fmt.Errorf("read the confirmation: %w", err)
		}
		return withHint(errors.New("not confirmed; nothing was changed"), fmt.Sprintf("type %d to go on, or say --yes; mailcutover spool list says what it is", n))
	}
	return nil
}

func printAct(w io.Writer, done admin.SpoolActed, what admin.SpoolAct) {
	named := ""
	for _, x := range [][2]string{{"--agency", what.Agency}, {"--mailbox", what.Mailbox}, {"--message", what.Message}} {
		if x[1] != "" {
			named += " " + x[0] + " " + quoted(x[1])
		}
	}
	if what.All {
		named = " --all"
	}
	verb := map[string]string{"hold": "set aside", "release": "released", "retry": "due now", "drop": "dropped"}[done.Act]
	one, many := "recipient", "recipients"
	if done.Act == "retry" {
		one, many = "recipient or mailbox", "recipients or mailboxes"
	}
	if done.Changed == 0 {
		fmt.Fprintln(w, "nothing was changed")
	} else {
		fmt.Fprintf(w, "%s: %s\n", verb, count(done.Changed, one, many))
	}
	if done.Busy > 0 {
		fmt.Fprintf(w, "left: %s, a delivery to the mailbox being under way; say it again in a moment\n", count(done.Busy, "recipient", "recipients"))
	}
	if done.Changed == 0 {
		return
	}
	switch done.Act {
	case "hold":
		fmt.Fprintf(w, "undo: mailcutover spool release%s --reason REASON (it takes all in quarantine that is named)\n", printable(named))
	case "release":
		fmt.Fprintf(w, "undo: mailcutover spool hold%s --reason REASON, for what isn't sent by then\n", printable(named))
	case "retry":
		fmt.Fprintln(w, "undo: there is none, and no need: what fails is tried again later, as before")
	case "drop":
		fmt.Fprintln(w, "undo: there is none")
	}
}

func newSpoolRate(c *connection) *cobra.Command {
	var reason string
	cmd := c.command(&cobra.Command{
		Use: "rate PLATFORM N", Short: "Send at most N messages a second from the spool to a platform; 0: no limit", Args: cobra.ExactArgs(2),
	}, func(cmd *cobra.Command, client *admin.Client, args []string) error {
		n, err := strconv.ParseFloat(args[1], 64)
		if err != nil || !(n >= 0 && n <= 1e6) {
			return &usageError{err: fmt.Errorf("rate %q: want messages a second, such as 50, or 0 for no limit", args[1]), command: cmd.CommandPath()}
		}
		done, err := client.SetSpoolRate(cmd.Context(), args[0], n, reason)
		if err != nil {
			return err
		}
		return c.show(cmd, done, func(w io.Writer) {
			text := "no limit"
			if done.Rate > 0 {
				text = fmt.Sprintf("at most %v messages a second", done.Rate)
			}
			fmt.Fprintf(w, "%s: %s\n", printable(done.Platform), text)
			if done.Before != nil {
				fmt.Fprintf(w, "undo: mailcutover spool rate %s %v --reason REASON; a restart brings back the configuration's\n", quoted(done.Platform), *done.Before)
			} else {
				fmt.Fprintln(w, "undo: a restart brings back the configuration's")
			}
		})
	})
	addReason(cmd, &reason)
	return cmd
}

func newSpoolResume(c *connection) *cobra.Command {
	var reason string
	cmd := c.command(&cobra.Command{
		Use: "resume", Short: "Put the spool back into service after a failed write or fsync", Args: cobra.NoArgs,
		Long: "Put the spool back into service after a failed write or fsync. See to the disk first: after\n" +
			"a failed fsync the system may call pages clean that never reached it.",
	}, func(cmd *cobra.Command, client *admin.Client, _ []string) error {
		st, err := client.ResumeSpool(cmd.Context(), reason)
		if err != nil {
			return err
		}
		return c.show(cmd, st, func(w io.Writer) {
			fmt.Fprintf(w, "the spool takes mail; %d outcomes are not on the disk yet\n", st.Pending)
			fmt.Fprintln(w, "undo: there is none; if the disk fails again, the spool stops by itself")
		})
	})
	addReason(cmd, &reason)
	return cmd
}

// newSpoolCheck returns the command that reads a spool which no process has open.
func newSpoolCheck(c *connection) *cobra.Command {
	var repair bool
	cmd := &cobra.Command{
		Use: "check DIR", Short: "Read all of a spool on this machine, while no node has it open", Args: cobra.ExactArgs(1),
		Long: "Read all of a spool on this machine, bodies too, while no node has it open, and say what\n" +
			"isn't as it was written. Without --repair nothing is changed; with it, what can't be read\n" +
			"is put into the spool's quarantine/, and messages whose bodies are damaged are set aside.\n" +
			"Nothing is deleted. Ends with 1 if anything was found and not repaired.",
		RunE: func(cmd *cobra.Command, args []string) error {
			report, err := spool.Check(nil, args[0], repair)
			switch {
			case errors.Is(err, spool.ErrInUse):
				return withHint(err, "stop the node first; of one that runs see mailcutover spool status")
			case err != nil:
				return withHint(err, "name the directory of a spool, such as /var/lib/mailcutover/spool")
			}
			out := struct {
				Messages int      `json:"messages"`
				Segments int      `json:"journal_files"`
				Bytes    int64    `json:"journal_bytes"`
				Repaired bool     `json:"repaired"`
				Problems []string `json:"problems"`
			}{report.Messages, report.Segments, report.Bytes, repair, []string{}}
			for _, p := range report.Problems {
				out.Problems = append(out.Problems, p.String())
			}
			err = c.show(cmd, out, func(w io.Writer) {
				fmt.Fprintf(w, "%d messages, %d journal files, %s\n", out.Messages, out.Segments, size(out.Bytes))
				for _, p := range out.Problems {
					fmt.Fprintf(w, "found: %s\n", printable(p))
				}
				switch {
				case len(out.Problems) == 0:
					fmt.Fprintln(w, "all is as it was written")
				case repair:
					fmt.Fprintln(w, "repaired: what can't be read is in quarantine/; nothing was deleted")
				}
			})
			if err == nil && len(out.Problems) > 0 && !repair {
				return withHint(fmt.Errorf("spool %s: %d things are not as they were written", args[0], len(out.Problems)),
					"mailcutover spool check "+quoted(args[0])+" --repair sets them aside; a start does so too, but for bodies")
			}
			return err
		},
	}
	cmd.Flags().BoolVar(&repair, "repair", false, "set aside what can't be read")
	return cmd
}

func newSpoolAdopt(c *connection) *cobra.Command {
	a := admin.Adopt{}
	cmd := c.command(&cobra.Command{
		Use: "adopt DIR --from NODE", Short: "Take over the spool of a node that won't come back", Args: cobra.ExactArgs(1),
		Long: "Take over the spool of a node that won't come back: DIR is where its disk, or a copy of\n" +
			"it, is found on the machine of the node that takes it over, which does all of it.\n\n" +
			"The spool is signed over first; if the old node does come back it finds that, and neither\n" +
			"delivers anything from it nor takes mail into it any more. A copy can't tell the original:\n" +
			"make sure that the old node doesn't start again on its own disk. Messages that it had\n" +
			"under way when it ended may arrive twice.\n\n" +
			"If the node ends meanwhile, it goes on at its next start.",
		Example: "  mailcutover spool adopt /mnt/mx2/spool --from mx2.example.org --reason 'mx2 burnt down'",
	}, func(cmd *cobra.Command, client *admin.Client, args []string) error {
		dir, err := filepath.Abs(args[0])
		if err != nil {
			return fmt.Errorf("directory %s: %w", args[0], err)
		}
		a.Directory = dir
		done, err := client.AdoptSpool(cmd.Context(), a)
		if p, ok := errors.AsType[*admin.Problem](err); ok && p.Status == http.StatusBadRequest {
			return &usageError{err: err, command: cmd.CommandPath()} // DIR and NODE are all that it says
		}
		if err != nil {
			return err
		}
		return c.show(cmd, done, func(w io.Writer) {
			fmt.Fprintf(w, "spool %s of node %s is adopted; %s on the way into this node's own\n", done.ID, printable(done.From), firstOf(count(done.Messages, "message", "messages"), "nothing"))
			fmt.Fprintf(w, "node %s delivers nothing from it any more, and takes nothing into it\n", printable(done.From))
			fmt.Fprintln(w, "see how far it is: mailcutover spool status")
			fmt.Fprintln(w, "undo: there is none; what was moved is in this node's spool")
		})
	})
	cmd.Flags().StringVar(&a.From, "from", "", "node whose spool it is; refused if it is another's (required)")
	require(cmd, "from")
	addReason(cmd, &a.Reason)
	return cmd
}
