package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"mailcutover/admin"
)

func newDomainComplete(c *connection) *cobra.Command {
	var reason string
	var off bool
	cmd := c.command(&cobra.Command{
		Use: "domain DOMAIN", Short: "Say that all addresses of a domain are in the table", Args: cobra.ExactArgs(1),
		Long: "Say that all addresses of a domain are in the table, or with --incomplete that they are not. In a\ndomain that is complete, an address is denied for good (550) if neither the table nor the\ndirectory has it; in all others its senders try again. Unless in a lab, it is proposed, and another person approves it;\nthe same command then says it. That a domain isn't complete, one person says.",
	}, func(cmd *cobra.Command, client *admin.Client, args []string) error {
		alone, err := c.alone(cmd, client)
		if err != nil {
			return err
		}
		if !alone && !off {
			return c.propose(cmd, client, admin.NewProposal{Kind: "complete-domain", Domain: args[0], Reason: reason}, unasked)
		}
		d, err := client.CompleteDomain(cmd.Context(), args[0], !off, reason)
		if err != nil {
			return err
		}
		return c.show(cmd, d, func(w io.Writer) {
			fmt.Fprintf(w, "domain %s: complete: %s\n", printable(d.Name), yesNo(d.Complete))
			undo := " --incomplete"
			if off {
				undo = ""
			}
			fmt.Fprintf(w, "undo: mailcutover table domain %s%s --reason ...\n", quoted(d.Name), undo)
		})
	})
	cmd.Flags().BoolVar(&off, "incomplete", false, "they are not")
	addReason(cmd, &reason)
	return cmd
}
