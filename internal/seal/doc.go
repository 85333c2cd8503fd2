// Package seal encrypts what lies on this node's disk: bodies in the spool and retained
// copies.
//
// A [Writer] turns a stream into chunks of 64 KiB, each with AES-256-GCM, under a key that is
// made for this stream alone: HKDF-SHA-256 of one of the operator's [Keys], a random salt, and
// a context that says what the stream is. So no nonce is ever used twice with a key, whatever
// is written how often, and a stream that is put in another's place doesn't open. The number
// of a chunk, and whether it is the last, are its nonce: chunks that are swapped, lost or cut
// off at the end are noticed (the STREAM construction of Hoang, Reyhanitabar, Rogaway and
// Vizár, "Online Authenticated-Encryption and its Nonce-Reuse Misuse-Resistance", 2015).
//
// The header names the key, so keys can change: [Keys] have one that new streams are sealed
// with, and any number of older ones that can still be read. A stream whose key isn't there
// gives [ErrUnknownKey], which says its name; it is kept until somebody brings the key back.
//
// # Format
//
//	mcseal1\n     8 bytes
//	key           16 bytes, its name, filled up with zeros
//	salt          16 bytes
//	chunks        65,536 bytes and a tag of 16 each; the last has 1 to 65,536, or none in an empty stream
//
// It promises neither that sizes stay secret nor when something was written. It protects
// disks that are stolen, sent back or copied, not against whoever has the running machine.
//
// Keys are immutable and safe for concurrent use; a Writer or Reader belongs to one goroutine.
package seal
