package main

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"mailcutover/admin"
)

// newSessionCommand returns the commands about sessions of logins.
func newSessionCommand(c *connection) *cobra.Command {
	cmd := &cobra.Command{Use: "session", Short: "Sessions of logins, on all nodes: list, show, close"}
	cmd.AddCommand(newSessionList(c), newSessionShow(c), newSessionClose(c))
	return cmd
}

func addSessionFilter(cmd *cobra.Command, f *admin.SessionFilter, here *bool) {
	cmd.Flags().StringVar(&f.Agency, "agency", "", "those of this agency")
	cmd.Flags().StringVar(&f.Mailbox, "mailbox", "", "those of this mailbox: an address, a login or a directory id")
	cmd.Flags().StringVar(&f.Login, "login", "", "those with this login at the platform")
	cmd.Flags().StringVar(&f.Address, "address", "", "those from this client address, or net")
	cmd.Flags().StringVar(&f.Platform, "platform", "", "those at this platform")
	cmd.Flags().StringVar(&f.Protocol, "protocol", "", "imap, submission, pop3 or sieve")
	cmd.Flags().BoolVar(here, "here", false, "only on the node that is asked")
}

func newSessionList(c *connection) *cobra.Command {
	var f admin.SessionFilter
	var here bool
	var limit int
	cmd := c.command(&cobra.Command{
		Use: "list", Short: "Sessions of all nodes; all that is named must fit", Args: cobra.NoArgs,
		Example: "  mailcutover session list --agency health\n  mailcutover session list --mailbox dora@health.example --protocol imap",
	}, func(cmd *cobra.Command, client *admin.Client, _ []string) error {
		if limit < 1 {
			return &usageError{command: cmd.CommandPath(), err: errors.New("--limit: want 1 or more")}
		}
		var all admin.Sessions
		for after := ""; ; {
			page, err := client.Sessions(cmd.Context(), f, here, after, min(limit-len(all.Sessions), 1000))
			if err != nil {
				return err
			}
			page.Sessions = append(all.Sessions, page.Sessions...)
			all = page
			if after = all.Next; after == "" || len(all.Sessions) >= limit {
				break
			}
		}
		warnMissing(cmd, all.Missing, "its sessions are not here")
		if n := len(all.Sessions); n < all.Total {
			fmt.Fprintf(cmd.ErrOrStderr(), "warning: there are %d; these are the first %d (--limit)\n", all.Total, n)
		}
		return c.show(cmd, all, func(w io.Writer) { printSessions(w, all.Sessions) })
	})
	addSessionFilter(cmd, &f, &here)
	cmd.Flags().IntVar(&limit, "limit", 1000, "at most so many")
	return cmd
}

// warnMissing says on standard error which nodes did not answer.
func warnMissing(cmd *cobra.Command, missing []admin.Missing, so string) {
	for _, m := range missing {
		fmt.Fprintf(cmd.ErrOrStderr(), "warning: node %s did not answer, %s: %s\n", oneLine(m.Node), so, oneLine(m.Error))
	}
}

func printSessions(w io.Writer, list []admin.Session) {
	if len(list) == 0 {
		fmt.Fprintln(w, "no sessions")
		return
	}
	var rows [][]string
	for i := range list {
		s := &list[i]
		rows = append(rows, []string{s.ID, s.Node, s.Protocol, s.State, s.Agency, s.Login, s.Platform, s.Client, seconds(time.Since(s.Since).Seconds()), size(s.FromClient), size(s.FromPlatform)})
	}
	table(w, []string{"SESSION", "NODE", "PROTOCOL", "STATE", "AGENCY", "LOGIN", "PLATFORM", "CLIENT", "FOR", "SENT", "RECEIVED"}, rows)
}

func newSessionShow(c *connection) *cobra.Command {
	return c.command(&cobra.Command{Use: "show SESSION", Short: "One session, on whatever node", Args: cobra.ExactArgs(1)},
		func(cmd *cobra.Command, client *admin.Client, args []string) error {
			s, err := client.Session(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			return c.show(cmd, s, func(w io.Writer) {
				pairs(w, [2]string{"session", s.ID}, [2]string{"node", s.Node}, [2]string{"listener", s.Listener}, [2]string{"protocol", s.Protocol}, [2]string{"state", s.State},
					[2]string{"client", s.Client}, [2]string{"login", s.Login}, [2]string{"mailbox", s.Mailbox}, [2]string{"agency", s.Agency}, [2]string{"epoch", s.Epoch},
					[2]string{"platform", s.Platform}, [2]string{"since", local(&s.Since)},
					[2]string{"from client", size(s.FromClient)}, [2]string{"from platform", size(s.FromPlatform)})
			})
		})
}

func newSessionClose(c *connection) *cobra.Command {
	var f admin.SessionFilter
	var all, here bool
	var reason string
	cmd := c.command(&cobra.Command{
		Use: "close [SESSION]", Short: "End sessions on all nodes; their clients log in again", Args: cobra.MaximumNArgs(1),
		Long: "End sessions on all nodes, within a second. Their clients are told and log in again,\nwhere the mailbox is then. Name a session, an agency, a mailbox, a login, an address, a\n" +
			"platform or a protocol, or say --all; all that is named must fit.",
		Example: "  mailcutover session close --mailbox dora@health.example --reason 'phone was stolen'",
	}, func(cmd *cobra.Command, client *admin.Client, args []string) error {
		if len(args) > 0 {
			f.ID = args[0]
		}
		if some := f != (admin.SessionFilter{}); some == all {
			return &usageError{command: cmd.CommandPath(), err: errors.New("say which sessions, or --all; not both")}
		}
		done, err := client.CloseSessions(cmd.Context(), f, all, here, reason)
		if err != nil {
			return err
		}
		warnMissing(cmd, done.Missing, "its sessions may go on")
		err = c.show(cmd, done, func(w io.Writer) {
			var where []string
			for _, n := range done.Nodes {
				where = append(where, fmt.Sprintf("%d on %s", n.Closed, n.Node))
			}
			fmt.Fprintf(w, "%d sessions ended: %s\nnothing undoes it: their clients log in again\n", done.Closed, oneLine(strings.Join(where, ", ")))
		})
		if err == nil && len(done.Missing) > 0 {
			return withHint(fmt.Errorf("%w: %d nodes did not answer", admin.ErrUnreachable, len(done.Missing)), "say it again once they do; a node that is off has no sessions")
		}
		return err
	})
	addSessionFilter(cmd, &f, &here)
	cmd.Flags().BoolVar(&all, "all", false, "every session")
	addReason(cmd, &reason)
	return cmd
}
