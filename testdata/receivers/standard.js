// A receiver that verifies with the published Standard Webhooks library.
const express = require('express');
const { Webhook } = require('standardwebhooks');

const app = express();
const verifier = new Webhook(process.env.WEBHOOK_SECRET);

app.post('/webhooks', express.raw({ type: '*/*', limit: '2mb' }), (req, res) => {
  try {
    verifier.verify(req.body.toString(), req.headers);
    res.status(204).end();
  } catch (error) {
    res.status(401).json({ error: error.message });
  }
});

app.listen(process.env.PORT, '127.0.0.1');
