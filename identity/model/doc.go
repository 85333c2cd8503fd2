// Package model makes of a directory's objects what the table needs: which agency a mailbox
// belongs to, the row that its mapping should have, and the addresses that stay where they
// are.
//
// An agency is everything below an organizational unit, every member of a group, or every
// object with a certain value of an attribute; the first rule that fits counts. What fits
// none belongs to no agency. How a platform calls a mailbox is a pattern of the
// configuration, filled in from the directory; so is the coexistence address, under which
// the other platform sends mail for a mailbox that has moved.
//
// It promises that a row is made of its own object only. It refuses objects that lack what a
// pattern names; they are told with their DN, and are in no mapping.
//
// The package is pure.
package model
