// Loaded before s3rver (node -r): its store answers a PUT when the bytes went into the stream, which may be before they
// are in the file, so that a GET straight after it could see the object as it was. S3 promises read-after-write; here a
// PUT is answered when its file is complete.
'use strict';

const fs = require('fs-extra');
const path = require('path');
const Store = require('s3rver/lib/stores/filesystem.js');

const open = new Map(); // path -> its last stream
const createWriteStream = fs.createWriteStream;
fs.createWriteStream = function (file, ...rest) {
  const stream = createWriteStream.call(fs, file, ...rest);
  open.set(path.resolve(file), stream);
  return stream;
};

function settled(file) {
  const stream = open.get(path.resolve(file));
  open.delete(path.resolve(file));
  if (!stream || stream.writableFinished) {
    return Promise.resolve();
  }
  return new Promise((resolve, reject) => stream.on('finish', resolve).on('error', reject));
}

const { putObject, putPart } = Store.prototype;
Store.prototype.putObject = async function (object) {
  const result = await putObject.call(this, object);
  await settled(this.getResourcePath(object.bucket, object.key, 'object'));
  return result;
};
Store.prototype.putPart = async function (bucket, uploadId, number, content) {
  const result = await putPart.call(this, bucket, uploadId, number, content);
  await settled(path.join(this.getResourcePath(bucket, undefined, 'uploads'), uploadId, String(number)));
  return result;
};
