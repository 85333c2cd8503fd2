// Package sasl reads what clients say in the SASL mechanisms PLAIN, LOGIN, OAUTHBEARER
// and XOAUTH2, and writes what platforms are told in them. It is shared by the dialogues of
// proxy/login and does no I/O; what [Send] writes, its leg keeps until it is flushed.
//
// [Begin] starts the server's half of an exchange: it makes the challenges and takes the
// answers, until there is an attempt for login.Conn. [Prove] makes the client's half, towards
// a platform, from an attempt and the mechanisms that the platform offers. Nothing of
// the client's message is passed on but the password or the token: names are the table's.
//
// Messages are read strictly. Base64 with blanks, line breaks, missing padding or
// stray bits is refused, and so is a message with a part too many, since two readers
// of it could see two identities. What is refused is an [ErrMalformed]; whether a name can be a login
// is not judged here.
//
// Values belong to one goroutine. Secrets are held in slices that the caller can wipe, and
// are in no error.
package sasl
