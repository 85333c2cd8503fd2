package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"mailcutover/admin"
	"mailcutover/demo"
	"mailcutover/rollback/rehearse"
	"mailcutover/routing"
)

// newRehearseCommand returns the commands that rehearse an agency's cutover and rollback.
func newRehearseCommand(c *connection) *cobra.Command {
	var agency, reason, logFile string
	var most int
	var hooks, dropped bool
	o := demo.RehearseOptions{}
	cmd := c.command(&cobra.Command{
		Use: "rehearse --agency AGENCY", Short: "Rehearse an agency's cutover and rollback against built-in platforms; list, show", Args: cobra.NoArgs,
		Long: "Cut an agency of this one's shape over and back, on the machine where this is called: as many\n" +
			"mailboxes of the same kinds with as many addresses and logins, under invented names, between two\n" +
			"built-in platforms, with the code that switches the real one, under mail and logins. Then every\n" +
			"message and login is looked for, and the node keeps what came of it. Nothing real is touched: no\n" +
			"platform, no mailbox, no hook; the node is asked for the agency's mailboxes and gets the record.\n\n" +
			"Exit code 1 if it didn't pass.",
		Example: "  mailcutover rehearse --agency health --reason 'before wave 3'\n  mailcutover rehearse list",
	}, func(cmd *cobra.Command, client *admin.Client, _ []string) error {
		if hooks {
			return &usageError{command: cmd.CommandPath(), err: errors.New("--with-hooks: hooks act on the real platforms, and a rehearsal never does; try them with agency cutover of a pilot group")}
		}
		if err := shapeOf(cmd.Context(), client, agency, most, &o); err != nil {
			return err
		}
		o.Out, o.Log = cmd.ErrOrStderr(), io.Discard
		o.Version = version().Version
		if logFile != "" {
			f, err := os.OpenFile(logFile, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
			if err != nil {
				return fmt.Errorf("open the log: %w", err)
			}
			defer f.Close()
			o.Log = f
		}
		ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGINT, syscall.SIGTERM)
		defer stop()
		r, err := demo.Rehearse(ctx, o)
		if err != nil {
			return withHint(err, "nothing was stored; with --log FILE the rehearsal's node says more")
		}
		stored := admin.Rehearsal{Record: r, Current: true}
		if !dropped {
			if stored, err = client.StoreRehearsal(cmd.Context(), admin.NewRehearsal{Record: r, Reason: reason}); err != nil {
				return err
			}
		}
		if err := c.show(cmd, stored, func(w io.Writer) { printRehearsal(w, &stored) }); err != nil {
			return err
		}
		if !r.Passed {
			return withHint(fmt.Errorf("agency %s: %w", agency, demo.ErrNotPassed), "don't switch it before it is known why; with --log FILE the rehearsal's node says more")
		}
		return nil
	})
	cmd.Flags().StringVar(&agency, "agency", "", "agency whose shape is rehearsed (required)")
	cmd.Flags().IntVar(&most, "mailboxes", 2000, "how many of its mailboxes take part at most; 0: all")
	cmd.Flags().IntVar(&o.Rate, "rate", 0, "messages per second (default 300)")
	cmd.Flags().DurationVar(&o.Phase, "phase", 0, "how long mail flows before, between and after the switches (default 3s)")
	cmd.Flags().BoolVar(&hooks, "with-hooks", false, "is refused: hooks act on the real platforms")
	cmd.Flags().BoolVar(&dropped, "no-record", false, "don't keep what came of it")
	cmd.Flags().StringVar(&logFile, "log", "", "append the log of the rehearsal's node to this file")
	addReason(cmd, &reason)
	require(cmd, "agency")
	cmd.AddCommand(newRehearseList(c), newRehearseShow(c))
	return cmd
}

// shapeOf asks the node for the shape of an agency.
func shapeOf(ctx context.Context, client *admin.Client, id string, most int, o *demo.RehearseOptions) error {
	a, err := client.Agency(ctx, id)
	if err != nil {
		return err
	}
	if o.Agency, err = routing.ParseAgencyID(a.ID); err != nil {
		return err
	}
	if o.Mapping, err = routing.ParseDigest(a.Mapping); err != nil {
		return err
	}
	o.Of, o.Shape = 0, nil
	for after := ""; ; {
		page, err := client.Mailboxes(ctx, id, after)
		if err != nil {
			return err
		}
		for _, m := range page.Mailboxes {
			if o.Of++; most == 0 || len(o.Shape) < most {
				o.Shape = append(o.Shape, demo.Shape{Kind: m.Kind, Addresses: len(m.Addresses), Logins: len(m.Logins)})
			}
		}
		if after = page.Next; after == "" {
			break
		}
	}
	if o.Of == 0 {
		return withHint(fmt.Errorf("agency %s has no mailboxes", id), "a rehearsal takes their number, kinds and names as they are in the table: import a list first")
	}
	return nil
}

func newRehearseList(c *connection) *cobra.Command {
	return c.command(&cobra.Command{Use: "list", Short: "The last rehearsal of each agency", Args: cobra.NoArgs},
		func(cmd *cobra.Command, client *admin.Client, _ []string) error {
			all, err := client.Rehearsals(cmd.Context(), "")
			if err != nil {
				return err
			}
			return c.show(cmd, all, func(w io.Writer) {
				var rows [][]string
				for i := range all {
					r := &all[i]
					rows = append(rows, []string{string(r.Agency), r.Ended.UTC().Format(time.RFC3339), daysAgo(r.Age(time.Now())), yesNo(r.Passed), yesNo(r.Current),
						fmt.Sprintf("%d of %d", r.Mailboxes, r.Of), seconds(r.Cutover.Closed), seconds(r.Rollback.Closed), r.Version})
				}
				table(w, []string{"AGENCY", "ENDED", "AGE", "PASSED", "SAME LIST", "MAILBOXES", "CLOSED THERE", "CLOSED BACK", "VERSION"}, rows)
			})
		})
}

func newRehearseShow(c *connection) *cobra.Command {
	return c.command(&cobra.Command{Use: "show AGENCY", Short: "The last rehearsal of an agency", Args: cobra.ExactArgs(1)},
		func(cmd *cobra.Command, client *admin.Client, args []string) error {
			all, err := client.Rehearsals(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			if len(all) == 0 {
				return withHint(fmt.Errorf("agency %s was never rehearsed", args[0]), "mailcutover rehearse --agency "+args[0]+" --reason ...")
			}
			return c.show(cmd, all[0], func(w io.Writer) { printRehearsal(w, &all[0]) })
		})
}

func printRehearsal(w io.Writer, r *admin.Rehearsal) {
	result := "passed"
	if !r.Passed {
		result = "DID NOT PASS"
	}
	rows := [][2]string{
		{"agency", string(r.Agency)}, {"result", result}, {"ended", r.Ended.UTC().Format(time.RFC3339)}, {"version", r.Version},
		{"mailboxes", fmt.Sprintf("%d of %d", r.Mailboxes, r.Of)}, {"list", fmt.Sprintf("%.12s, in force now: %s", r.Mapping, yesNo(r.Current))},
		{"cutover", switchText(&r.Cutover)}, {"rollback", switchText(&r.Rollback)},
		{"messages", fmt.Sprintf("%d answered with 250: %d right, %d wrong, %d lost, %d duplicates; %d refused", r.Mail.Sent, r.Mail.Right, r.Mail.Wrong, r.Mail.Lost, r.Mail.Duplicates, r.Mail.Refused)},
		{"logins", fmt.Sprintf("%d right, %d wrong, %d refused; %d told to come back, %d sessions ended", r.Logins.Right, r.Logins.Wrong, r.Logins.Refused, r.Logins.PutOff, r.Logins.Moved)},
	}
	if r.Who != "" {
		rows = append(rows, [2]string{"stored by", r.Who}, [2]string{"reason", r.Reason})
	}
	pairs(w, rows...)
	for _, p := range r.Problems {
		fmt.Fprintln(w, "problem:", printable(p))
	}
}

func switchText(s *rehearse.Switch) string {
	if !s.Done {
		return "not done"
	}
	return fmt.Sprintf("done in %s, closed for %s; mail for %d recipients held, %d replayed, %d put off", seconds(s.Seconds), seconds(s.Closed), s.Held, s.Replayed, s.PutOff)
}

// daysAgo is how long ago something was, in days and hours.
func daysAgo(d time.Duration) string {
	if d < 48*time.Hour {
		return d.Round(time.Minute).String()
	}
	return fmt.Sprintf("%d days", int(d.Hours())/24)
}
